# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
#
# Fills the store through a file system on /dev/vda until the disk refuses, and looks at it again
# when there is space. /dev/vdb, which the host writes, says when to go on.
set -e
. /guest/files.sh

readonly BALLAST=16 PIECES=64  # Files, and pieces of 64 KiB in each: 4 MiB.

wait_until_told() {
    until [ "$(dd if=/dev/vdb bs=512 count=1 iflag=direct 2>/dev/null | head -c 4)" = "$1" ]; do
        sleep 0.2
    done
}

# check_kept COUNT: every file that was synced, from the disk itself.
check_kept() {
    echo 3 >/proc/sys/vm/drop_caches
    number=0
    while [ "$number" -lt "$1" ]; do
        emit /guest/seed "kept-$number" $((number % 60)) "$PIECES" | cmp -s - "kept-$number" ||
            { echo "kept-$number is not what was synced"; exit 1; }
        number=$((number + 1))
    done
}

mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 /dev/vda
mount -o noatime /dev/vda /mnt
cd /mnt
number=0
while [ "$number" -lt "$BALLAST" ]; do
    emit /guest/seed "ballast-$number" "$number" "$PIECES" >"ballast-$number"
    number=$((number + 1))
done
sync
echo "BALLAST $((BALLAST * 4)) MiB"
wait_until_told snap

# Written again in place: what was there is the snapshot's alone from now on.
number=0
while [ "$number" -lt "$BALLAST" ]; do
    emit /guest/seed "Ballast-$number" $((number + 30)) "$PIECES" |
        dd of="ballast-$number" conv=notrunc 2>/dev/null
    number=$((number + 1))
done
sync

kept=0
while emit /guest/seed "kept-$kept" $((kept % 60)) "$PIECES" >"kept-$kept" 2>/dev/null &&
    sync "kept-$kept" 2>/tmp/refusal; do
    kept=$((kept + 1))
done
echo "FULL after $kept files of 4 MiB: $(cat /tmp/refusal)"
dmesg | grep -E 'I/O error, dev vda|Aborting journal|Remounting' | head -n 3 |
    sed 's/^/KERNEL /'
echo "MOUNTED $(grep ' /mnt ' /proc/mounts | cut -d ' ' -f 4 | cut -d , -f 1)"
# It goes on trying, as programs do.
for _ in 1 2 3; do
    emit /guest/seed more 1 "$PIECES" >more 2>/dev/null && sync more 2>/dev/null || true
done
rm -f more 2>/dev/null || true
check_kept "$kept"
echo "READABLE $kept files, as they were synced"
wait_until_told free

cd /
umount /mnt || { sleep 2; umount /mnt; }
# What every boot does after an error: replays the journal, and mends what was never synced.
e2fsck -f -p /dev/vda >/tmp/verdict 2>&1 || [ $? -eq 1 ] || { cat /tmp/verdict; exit 1; }
e2fsck -f -n /dev/vda >/tmp/verdict 2>&1 || { cat /tmp/verdict; exit 1; }
echo "CLEAN e2fsck finds no fault"
mount -o noatime /dev/vda /mnt
cd /mnt
check_kept "$kept"
rm -f "kept-$kept"
emit /guest/seed after 7 "$PIECES" >after
sync after
cd /
umount /mnt
e2fsck -f -n /dev/vda >/tmp/verdict 2>&1 || { cat /tmp/verdict; exit 1; }
mount -o ro /dev/vda /mnt
emit /guest/seed after 7 "$PIECES" | cmp -s - /mnt/after
umount /mnt
echo "DONE the files that were synced are there, and so is a new one"
