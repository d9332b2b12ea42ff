# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
#
# Shares a store with a guest that fills it. Reads its files on /dev/vda over and over, and
# overwrites pieces of /dev/vdc, until /dev/vdb, which the host writes, says "stop". Reads must
# always work; a write may be refused, and what was not refused must be there.
set -e
. /guest/files.sh

readonly FILES=4 PIECES=64  # Pieces of 64 KiB.

# read_files: from the disk itself.
read_files() {
    echo 3 >/proc/sys/vm/drop_caches
    number=0
    while [ "$number" -lt "$FILES" ]; do
        emit /guest/seed "mine-$number" "$number" "$PIECES" | cmp -s - "/mnt/mine-$number" ||
            { echo "mine-$number is not what was synced"; exit 1; }
        number=$((number + 1))
    done
}

mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 /dev/vda
mount -o noatime /dev/vda /mnt
number=0
while [ "$number" -lt "$FILES" ]; do
    emit /guest/seed "mine-$number" "$number" "$PIECES" >"/mnt/mine-$number"
    number=$((number + 1))
done
sync
echo "READY"

round=0 taken=0 refused=0
until [ "$(dd if=/dev/vdb bs=512 count=1 iflag=direct 2>/dev/null | head -c 4)" = stop ]; do
    round=$((round + 1))
    place=$((round % 16))
    yes "round $round" | head -c 65536 >/tmp/piece
    if dd if=/tmp/piece of=/dev/vdc bs=64k seek="$place" oflag=direct conv=notrunc 2>/dev/null; then
        taken=$((taken + 1))
        mv /tmp/piece "/tmp/piece-$place"
    else
        refused=$((refused + 1))
        rm -f "/tmp/piece-$place"  # Whatever it holds now, it is no other's.
    fi
    for piece in /tmp/piece-*; do
        [ -e "$piece" ] || continue  # All have been refused.
        dd if=/dev/vdc bs=64k skip="${piece##*-}" count=1 iflag=direct 2>/dev/null |
            cmp -s - "$piece" || { echo "piece ${piece##*-} is not what was written"; exit 1; }
    done
    read_files
    echo "ROUND $round $taken $refused"
done

echo "written at the end" >/mnt/end
sync /mnt/end
umount /mnt
e2fsck -f -n /dev/vda >/tmp/verdict 2>&1 || { cat /tmp/verdict; exit 1; }
echo "DONE after $round rounds: every read was right, $refused of $round writes refused"
