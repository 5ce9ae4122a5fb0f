# Makes a libvirt host out of the namespaces that this shell is alone in, and
# then keeps them alive: whoever kills this process last, ends the host.
# $1 the host's folder, $2 its name, $3 the lab's identity, $4 the path of
# ceph.conf, $5 that of the certificates of libvirt's clients.
set -e
echo "$2" > /proc/sys/kernel/hostname
mount --make-rprivate /
mount -t tmpfs -o mode=755,size=256m tmpfs /run
mkdir -p /run/libvirt /run/lock
mount --bind "$1/etc/libvirt" /etc/libvirt
mount --bind "$1/etc/hosts" /etc/hosts
mount --bind "$1/lib/libvirt" /var/lib/libvirt
mount --bind "$1/cache/libvirt" /var/cache/libvirt
mount --bind "$1/log/libvirt" /var/log/libvirt
mount --bind "$1/ceph.conf" "$4"
mount --bind "$1/pki" "$5"

# A mount point can be neither renamed nor removed: virtlogd would rotate
# /dev/null away, for the whole machine, if a guest's log were that.
mount --bind /dev/null /dev/null

# A guest under KVM dies on some nested machines, and libvirt would offer it. An
# empty file in the device's place is no KVM. It must be read-only: libvirt takes
# a writable one for a KVM that it missed, and probes QEMU again at every turn.
if [ -e /dev/kvm ]; then
	mount --bind "$1/no-kvm" /dev/kvm
	mount -o remount,bind,ro /dev/kvm
fi

echo "$3 $2" > /run/vmdisk-lab
exec sleep infinity
