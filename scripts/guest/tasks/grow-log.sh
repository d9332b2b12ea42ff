# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
#
# Appends numbered records to a log on a new disk until the second disk, which the host writes,
# says "stop". A record fills a block of the file system: ext4 promises no order for the data of a
# block that was there before. It is one line 128 times: the number, and a sum over all numbers so
# far. Sums, not random data, because the shell can make them without another process.
#
# With dioread_lock ext4 makes the log longer on the disk only after its data are there; by default
# a power cut may leave zeros at its end, and so may a snapshot.
#
# After each fsync the name of a file says how far it went, and so does the console. In between the
# kernel writes early, and another process makes it commit, so that a log of any length can be met.
set -e

echo 2 >/proc/sys/vm/dirty_writeback_centisecs
echo 2 >/proc/sys/vm/dirty_expire_centisecs
mkfs.ext4 -q -F /dev/vda
mount -t ext4 -o data=ordered,dioread_lock /dev/vda /mnt
cd /mnt
exec 3>>log
number=0 sum=0 told=0
: >upto-0
sync
echo "WRITING"
while [ ! -e /tmp/stop ]; do
    echo "something else" >other
    sync other
done &
committer=$!

while [ "$(dd if=/dev/vdb bs=512 count=1 iflag=direct 2>/dev/null | head -c 4)" != stop ]; do
    batch=0
    while [ "$batch" -lt 64 ]; do
        batch=$((batch + 1))
        number=$((number + 1))
        sum=$(((sum * 6364136223846793005 + number) & 0x7fffffffffffffff))
        record="$((1000000000000 + number)) $((10000000000000000 + sum % 90000000000000000))
"
        for _ in 1 2 3 4 5 6 7; do
            record=$record$record
        done
        echo -n "$record" >&3
    done
    sync log
    mv "upto-$told" "upto-$number"
    told=$number
    echo "SYNCED $number"
done

exec 3>&-
touch /tmp/stop
wait "$committer"
cd /
umount /mnt
echo "ENDED $number"
