#!/bin/busybox sh
# First process of a VM: the host's root, read-only, under a layer in memory, becomes ours. Every program of the host is
# there, and nothing written here outlasts the VM but what goes to /run/vm.
B=/bin/busybox
$B mount -t proc proc /proc
$B mount -t sysfs sys /sys
$B mount -t devtmpfs dev /dev
while read -r module; do
    $B insmod "/mod/$module" || echo "init: cannot load $module"
done < /mod/order
O=trans=virtio,version=9p2000.L,msize=512000
$B mount -t 9p -o $O,ro,cache=loose host /host || { echo "init: the host's root cannot be mounted"; $B poweroff -f; }
$B mount -t tmpfs -o size=75% layer /layer
$B mkdir -p /layer/upper /layer/work
$B mount -t overlay -o lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work root /new
for d in proc sys dev run; do $B mkdir -p /new/$d; done
$B mount -t tmpfs run /new/run
$B mkdir -p /new/run/vm /new/run/tmp
$B mount -t 9p -o $O,rw,cache=none vm /new/run/vm
$B mount --move /proc /new/proc
$B mount --move /sys /new/sys
$B mount --move /dev /new/dev
$B mkdir -p /new/dev/pts /new/dev/shm
$B mount -t devpts devpts /new/dev/pts
$B mount -t tmpfs shm /new/dev/shm
$B ln -sf /proc/self/fd /new/dev/fd
$B mount -t tracefs tracing /new/sys/kernel/tracing
$B mount -t bpf bpf /new/sys/fs/bpf
$B mount -t cgroup2 cgroup /new/sys/fs/cgroup
$B ip link set lo up
exec $B chroot /new /bin/sh /run/vm/guest.sh < /new/dev/null
