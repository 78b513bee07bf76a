#!/bin/sh
# A standby of db-1, from the first start on.
set -eu
data=/var/lib/postgresql/data
if [ ! -s "$data/PG_VERSION" ]; then
    until pg_basebackup --host=db-1 --username="$POSTGRES_USER" --pgdata="$data" --write-recovery-conf --wal-method=stream; do
        echo "db-1 is not ready yet" >&2
        find "$data" -mindepth 1 -delete
        sleep 1
    done
    echo "primary_conninfo = 'host=db-1 user=$POSTGRES_USER password=$PGPASSWORD application_name=db2'" >>"$data/postgresql.auto.conf"
fi
chmod 0700 "$data"
exec postgres -D "$data"
