#!/bin/sh
# Lets the standby in. Run once, by the image of PostgreSQL, when its database is made.
set -eu
echo "host replication all samenet scram-sha-256" >>"$PGDATA/pg_hba.conf"
