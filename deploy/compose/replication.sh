#!/bin/sh
# Lets the standby in, and has commits wait for it. Run once, by the image of PostgreSQL, when its database is made: a
# server that waited for a standby before that would never get so far.
set -eu
echo "synchronous_standby_names = 'db2'" >>"$PGDATA/postgresql.conf"
echo "host replication all samenet scram-sha-256" >>"$PGDATA/pg_hba.conf"
