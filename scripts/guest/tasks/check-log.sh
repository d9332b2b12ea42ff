# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
#
# Mounts each disk, a clone of a snapshot: the kernel replays the journal. Says the log's checksum,
# and makes sure that the file system is without a fault afterwards, and can be written.
set -e
for disk in /dev/vd?; do
    mount "$disk" /mnt
    sum=$(sha256sum </mnt/log)
    echo "LOG $(cat "/sys/block/${disk##*/}/serial") ${sum%% *}"
    echo "written later" >/mnt/later
    umount /mnt
    e2fsck -f -n "$disk" >/tmp/verdict 2>&1 || { cat /tmp/verdict; exit 1; }
done
