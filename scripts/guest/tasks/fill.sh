# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
#
# Makes a file system on a new disk, writes the files of first.plan and reads them back.
set -e
. /guest/files.sh

[ -b /dev/vda ] || { echo "there is no /dev/vda"; exit 1; }
echo "found /dev/vda, $(($(cat /sys/block/vda/size) / 2048)) MiB," \
    "serial '$(cat /sys/block/vda/serial)'"

mkfs.ext4 -q -F /dev/vda
echo "made ext4"
mount /dev/vda /mnt
cd /mnt
write_files /guest/first.plan

cd /
umount /mnt
echo 3 >/proc/sys/vm/drop_caches
mount /dev/vda /mnt
echo "mounted it anew; reading back"
cd /mnt
check_files /guest/first.sums
cd /
umount /mnt
