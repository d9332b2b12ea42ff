# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
#
# After the crash: the journal is replayed, the file system must then be without a fault, and every
# file that was on the disk before, by sync or fsync, must be whole.
set -e
. /guest/files.sh

echo "replaying the journal"
status=0
e2fsck -f -p /dev/vda || status=$?
[ "$status" -le 1 ] || { echo "e2fsck -p: status $status, it wants a human"; exit 1; }
echo "checking the file system"
e2fsck -f -n /dev/vda

mount -o ro /dev/vda /mnt
cd /mnt
for sums in /guest/*.sums; do
    name=${sums##*/}
    echo "checking the files of '${name%.sums}'"
    check_files "$sums"
done
cd /
umount /mnt
