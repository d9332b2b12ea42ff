# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
#
# Writes the files of second.plan and syncs; then writes those of later.plan, each with its own
# fsync, and says so after each, until the disk dies under it. It is meant never to end.
set -e
. /guest/files.sh

mount /dev/vda /mnt
cd /mnt
write_files /guest/second.plan
sync
echo "SYNCED"

kept=0
while read -r name skip count; do
    mkdir -p "${name%/*}"
    emit /guest/seed "$name" "$skip" "$count" | dd of="$name" bs=64k conv=fsync 2>/dev/null
    kept=$((kept + 1))
    echo "LATER $kept"
done </guest/later.plan
echo "nobody stopped the disk"
exit 1
