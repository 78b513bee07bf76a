#!/bin/sh
# A standby of db-1, from the first start on. Whoever promotes it empties its synchronous_standby_names, or gives it a standby.
set -eu
data=/var/lib/postgresql/data/pgdata
if [ ! -e "$data" ]; then
    # Under another name until it is whole.
    copy=$data.copy
    rm -rf "$copy"
    until pg_basebackup --host=db-1 --username="$POSTGRES_USER" --pgdata="$copy" --write-recovery-conf --wal-method=stream --checkpoint=fast; do
        echo "db-1 is not ready yet" >&2
        rm -rf "$copy"
        sleep 1
    done
    echo "primary_conninfo = 'host=db-1 user=$POSTGRES_USER password=$PGPASSWORD application_name=db2'" >>"$copy/postgresql.auto.conf"
    chmod 0700 "$copy"
    mv "$copy" "$data"
fi
exec postgres -D "$data"
