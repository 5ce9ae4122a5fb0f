// What the destination is asked of its libvirt: whether it has what the machine runs
// on, and room for it.

package migrate

import (
	"context"
	"errors"
	"fmt"

	"github.com/vmdisk/vmdisk/domain"
	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"
)

// askDest asks on the destination's own connection, one question after the other.
func (q *inquiry) askDest(ctx context.Context) []Check {
	all := []Check{q.checkName(ctx), q.askVersions(ctx), q.checkEmulator()}
	all = append(all, q.checkMachine(ctx), q.checkCPU(ctx), q.checkMemory(ctx))
	if q.TLS {
		all = append(all, q.checkTLS())
	}
	return append(append(all, q.checkNetworks(ctx)...), q.checkSecrets(ctx)...)
}

// checkName looks for another machine of this name or UUID. One with both that
// is shut off is what a migration without UNDEFINE_SOURCE leaves; libvirt
// replaces it.
func (q *inquiry) checkName(ctx context.Context) Check {
	const name = "name is free"
	to, is := q.To.Hostname, q.info
	for _, key := range []string{is.Name, is.UUID} {
		has, err := domain.Find(ctx, q.Dest, key)
		switch {
		case errors.Is(err, domain.ErrNotFound):
			continue
		case err != nil:
			return fail(name, err, "%s: %v", to, err)
		case has.UUID == is.UUID && has.Name == is.Name && has.Running:
			return fail(name, domain.ErrExists, "%s runs on %s too", has.Name, to).on(to, "vmdisk repair %s", has.Name)
		case has.UUID == is.UUID && has.Name == is.Name:
			continue
		case has.UUID == is.UUID:
			return fail(name, domain.ErrExists, "%s has this machine under the name %s", to, has.Name).on(to, "virsh domrename %s %s", has.Name, is.Name)
		default:
			return fail(name, domain.ErrExists, "%s has another VM %s (%s)", to, has.Name, has.UUID).on(to, "virsh domrename %s ANOTHER", has.Name)
		}
	}
	return pass(name, "no other %s on %s", is.Name, to)
}

func (q *inquiry) askVersions(ctx context.Context) Check {
	to, err := domain.DescribeVersions(ctx, q.Dest)
	if err != nil {
		return warn("versions", "%s does not tell: %s", q.To.Hostname, reason(err))
	}
	return q.checkVersions(q.versions, to)
}

// checkVersions warns of a destination that is older. With the machine type there it
// mostly works, but only the other direction is promised.
func (q *inquiry) checkVersions(from, to domain.Versions) Check {
	const name = "versions"
	older := func(what string, theirs, ours domain.Version) Check {
		return warn(name, "%s has %s %s, older than %s's %s", q.To.Hostname, what, theirs, q.From.Hostname, ours).
			on(q.To.Hostname, "bring %s to %s or later first", what, ours)
	}
	switch {
	case to.QEMU < from.QEMU:
		return older("QEMU", to.QEMU, from.QEMU)
	case to.Libvirt < from.Libvirt:
		return older("libvirt", to.Libvirt, from.Libvirt)
	}
	return pass(name, "libvirt %s, QEMU %s", to.Libvirt, to.QEMU)
}

func (q *inquiry) checkEmulator() Check {
	const name = "emulator"
	if q.noEmulator != nil {
		return fail(name, ErrUnfit, "%s cannot run %s machines with %s: %s", q.To.Hostname, q.hw.VirtType, orDefault(q.hw.Emulator), reason(q.noEmulator)).
			on(q.To.Hostname, "ls -l %s; is QEMU for %s installed, and /dev/kvm there?", orDefault(q.hw.Emulator), q.hw.Arch)
	}
	return pass(name, "%s", orDefault(q.hw.Emulator))
}

func orDefault(emulator string) string {
	if emulator == "" {
		return "the host's own"
	}
	return emulator
}

// there is what of the hardware can be asked about further: with an emulator that the
// destination does not have, it answers nothing.
func (q *inquiry) there() domain.Hardware {
	hw := q.hw
	if q.noEmulator != nil {
		hw.Emulator = ""
	}
	return hw
}

func (q *inquiry) checkMachine(ctx context.Context) Check {
	const name = "machine type"
	if err := domain.Offers(ctx, q.Dest, q.there()); err != nil {
		return fail(name, ErrUnfit, "%s has no %s %s for %s: %s", q.To.Hostname, q.hw.VirtType, q.hw.Machine, q.hw.Arch, reason(err)).
			on(q.To.Hostname, "upgrade QEMU; virsh capabilities lists what it has")
	}
	return pass(name, "%s %s", q.hw.VirtType, q.hw.Machine)
}

// checkCPU compares the guest's CPU with what the destination's hypervisor can
// give. An emulated CPU without a model of its own is the same everywhere.
func (q *inquiry) checkCPU(ctx context.Context) Check {
	const name = "CPU"
	cpu := q.xml.CPU
	switch {
	case cpu != nil && cpu.Mode == "host-passthrough":
		return q.checkHostCPU()
	case cpu == nil || cpu.Model == nil:
		return pass(name, "no model asked for")
	}
	text, err := cpu.Marshal()
	if err != nil {
		return fail(name, ErrUnfit, "%v", err)
	}
	hw := q.there()
	if domain.Offers(ctx, q.Dest, hw) != nil { // which is an answer of its own
		hw.Machine = ""
	}
	result, err := domain.CompareCPU(ctx, q.Dest, hw, text)
	no := func(format string, args ...any) Check {
		return fail(name, ErrUnfit, format, args...).
			on(q.From.Hostname, "give it a model that both have:  virsh edit %s; on %s:  virsh domcapabilities lists them", q.info.Name, q.To.Hostname)
	}
	switch {
	case err != nil:
		return no("%s cannot give %s: %s", q.To.Hostname, cpu.Model.Value, reason(err))
	case result == libvirt.CPU_COMPARE_INCOMPATIBLE:
		return no("%s cannot give %s", q.To.Hostname, cpu.Model.Value)
	}
	return pass(name, "%s", cpu.Model.Value)
}

// checkHostCPU compares the hosts, for a guest that has been given all that the one has.
func (q *inquiry) checkHostCPU() Check {
	const name = "CPU"
	if q.From.CPU != q.To.CPU || q.From.Features != q.To.Features {
		return fail(name, ErrUnfit, "%s passes its own CPU through, %s, and %s has another, %s",
			q.From.Hostname, q.From.CPU, q.To.Hostname, q.To.CPU).
			on(q.From.Hostname, "give it a model that both have:  virsh edit %s", q.info.Name)
	}
	return pass(name, "both have %s", q.To.CPU)
}

// checkMemory refuses what would make the destination swap, or kill somebody.
func (q *inquiry) checkMemory(ctx context.Context) Check {
	const name = "memory"
	needs := q.memory
	has, err := domain.HostMemory(ctx, q.Dest)
	if err != nil {
		return warn(name, "%s does not tell: %s", q.To.Hostname, reason(err))
	}
	c := pass(name, "%s of %s free", size(needs), size(has.Free))
	if needs <= has.Free {
		return c
	}
	if q.Offline && needs <= has.Total {
		c = warn(name, "%s has %s free, to start %s takes %s", q.To.Hostname, size(has.Free), q.info.Name, size(needs))
	} else {
		c = fail(name, ErrUnfit, "%s has %s of memory free, %s has %s", q.To.Hostname, size(has.Free), q.info.Name, size(needs))
	}
	return c.on(q.To.Hostname, "virsh list; move or stop something there, or choose another host")
}

func size(n int64) string {
	switch {
	case n < 10<<30:
		return fmt.Sprintf("%d MiB", n>>20)
	default:
		return fmt.Sprintf("%d GiB", n>>30)
	}
}

// checkTLS is a question that libvirt answers nobody: whether QEMU has certificates. A
// migration without them ends before anything is copied.
func (q *inquiry) checkTLS() Check {
	return warn("TLS", "nobody can be asked whether QEMU has certificates; without, it fails at once").
		on("both hosts", "virt-pki-validate; migrate_tls_x509_cert_dir in /etc/libvirt/qemu.conf")
}

// checkSecrets looks for the libvirt secrets that the disks name. The one of this
// cluster has been set; what another is for is not known here.
func (q *inquiry) checkSecrets(ctx context.Context) []Check {
	const name = "secret"
	var all []Check
	if q.Secret != nil {
		if all = append(all, *q.Secret); !q.Secret.OK {
			return all
		}
	}
	for _, id := range secrets(q.xml) {
		has, err := domain.HasSecret(ctx, q.Dest, id)
		switch {
		case err != nil:
			all = append(all, fail(name, err, "%s: %s", q.To.Hostname, reason(err)))
		case !has:
			all = append(all, fail(name, ErrUnfit, "%s has no libvirt secret %s", q.To.Hostname, id).
				on(q.To.Hostname, "virsh secret-define FILE; virsh secret-set-value %s --interactive", id))
		}
	}
	return all
}

// secrets are the UUIDs of those that a machine's disks need.
func secrets(xml *libvirtxml.Domain) []string {
	var all []string
	seen := map[string]bool{}
	add := func(id string) {
		if id != "" && !seen[id] {
			seen[id], all = true, append(all, id)
		}
	}
	for _, d := range xml.Devices.Disks {
		if d.Auth != nil && d.Auth.Secret != nil {
			add(d.Auth.Secret.UUID)
		}
		if d.Source == nil {
			continue
		}
		if n := d.Source.Network; n != nil && n.Auth != nil && n.Auth.Secret != nil {
			add(n.Auth.Secret.UUID)
		}
		if d.Source.Encryption != nil {
			for _, s := range d.Source.Encryption.Secrets {
				add(s.UUID)
			}
		}
	}
	return all
}
