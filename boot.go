// Boot: from an image to a running machine.

package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/secret"
)

// boot is the state that the steps share.
type boot struct {
	session
	h      *Host
	name   string
	o      BootOptions
	image  disk.Name
	origin disk.Origin // in place of an image
	root   disk.Name
	more   []*ownDisk
	secret secret.Secret
	crowd  *crowd
	here   sync.Once // that it has arrived in it
}

// Boot clones an image to a root disk of its size, or links one to a file or a URL to be
// filled from ([Host.Fill]), makes the machine's other disks, defines
// it on them and starts it. On failure nothing is left. A name or UUID that is taken is
// [domain.ErrExists]; an image without its protected snapshot
// [disk.ErrNotFound] or [disk.ErrNotProtected]; one that holds a qcow2 or another
// such file [disk.ErrNotRaw]; a size below the image's [disk.ErrInvalid].
//
// Similar to: rbd clone, rbd resize, virsh define, virsh start.
func (h *Host) Boot(ctx context.Context, name string, o BootOptions) (VM, error) {
	return h.boot(ctx, name, o, nil)
}

// boot boots a machine, by itself or in a crowd.
func (h *Host) boot(ctx context.Context, name string, o BootOptions, crowd *crowd) (VM, error) {
	const op = "boot"
	b := &boot{h: h, name: name, o: o, crowd: crowd}
	defer b.arrive()
	if err := b.prepare(); err != nil {
		return VM{}, failed(op, name, err)
	}
	defer b.end()
	if err := b.openOrigin(ctx); err != nil {
		return VM{}, failed(op, name, err)
	}
	if err := b.open(ctx, h); err != nil {
		return VM{}, failed(op, name, err)
	}
	h.warnCachePolicy(op, name, b.cluster)
	err := h.perform(ctx, task{
		op: op, object: name, on: &b.session,
		pool: b.root.Pool, leases: []string{b.root.Pool + "/" + b.o.UUID, b.root.Pool + "/" + name},
		vm: b.o.UUID, check: b.check, steps: b.steps,
	})
	if err != nil {
		return VM{}, b.unreadable(err)
	}
	vm, err := h.outcome(ctx, b.conn, b.o.UUID)
	if b.origin.Where != "" && err == nil {
		vm.Filling, err = h.fillingOf(context.WithoutCancel(ctx), b.cluster, b.root)
	}
	return vm, failed(op, name, err)
}

func (b *boot) steps() []step {
	steps := append([]step{b.h.secretStep(&b.session, "", &b.secret)}, b.rootSteps()...)
	for _, d := range b.more {
		steps = append(steps, d.steps(b.cluster)...)
	}
	steps = append(steps, step{name: "define", detail: says(b.name), do: b.define, back: []action{b.onVM(actUndefine)}})
	off := []action{b.onVM(actPowerOff)}
	switch {
	case b.o.NoStart:
	case b.crowd == nil:
		steps = append(steps, step{name: "start", detail: says(b.name), do: b.start, back: off})
	default:
		steps = append(steps, step{name: "start", detail: says(b.name), do: b.startPaused, back: off},
			step{name: "run", detail: says(b.name), do: b.run})
	}
	return steps
}

// cloneStep makes root disks.
func (b *boot) cloneStep(disks ...disk.Name) step {
	to := disks[0].String()
	if more := len(disks) - 1; more > 0 {
		to += fmt.Sprintf(" and %d more", more)
	}
	if b.o.Size > 0 {
		to += ", " + disk.FormatSize(b.o.Size)
	}
	s := step{name: "clone", detail: says(b.image.String() + " → " + to)}
	clone := b.cluster.Clone
	if b.o.Format == "raw" {
		clone = b.cluster.CloneAsIs
	}
	s.do = func(ctx context.Context) error { return clone(ctx, b.image, b.o.Size, disks...) }
	for _, n := range disks {
		s.back = append(s.back, action{Verb: actRemove, Image: n.String()})
	}
	return s
}

// check refuses what is taken before anything is made.
func (b *boot) check(ctx context.Context) error {
	if err := b.checkFree(ctx); err != nil {
		return err
	}
	if b.origin.Where != "" {
		if err := b.h.originHere(&b.session, b.origin); err != nil {
			return err
		}
		b.origin.Host = b.host
	}
	return b.checkDisks(ctx)
}

// checkDisks refuses names of disks that are taken: what has one of them later is
// this run's.
func (b *boot) checkDisks(ctx context.Context) error {
	if err := b.cluster.Absent(ctx, b.root); err != nil {
		return err
	}
	for _, d := range b.more {
		if err := b.cluster.Absent(ctx, d.name); err != nil {
			return err
		}
	}
	return nil
}

// onVM is an action on the machine.
func (b *boot) onVM(v verb) action {
	return action{Verb: v, VM: b.o.UUID, Name: b.name, Host: b.host}
}

// checkFree refuses a name or UUID that is taken before anything is made.
func (b *boot) checkFree(ctx context.Context) error {
	for _, key := range []string{b.name, b.o.UUID} {
		has, err := domain.Find(ctx, b.conn, key)
		if err == nil {
			return &domain.Error{Object: "VM " + key, Kind: domain.ErrExists, Reason: "already exists (" + has.UUID + ", " + has.State + ")"}
		}
		if !errors.Is(err, domain.ErrNotFound) {
			return err
		}
	}
	return nil
}

func (b *boot) define(ctx context.Context) error {
	root, err := b.h.rbdDisk(ctx, b.cluster, b.root, b.secret.UUID)
	if err != nil {
		return err
	}
	var more []domain.Disk
	for _, d := range b.more {
		more = append(more, d.device(root))
	}
	var xml string
	if b.o.DomainXML != "" {
		xml, err = domain.Supply(b.o.DomainXML, b.name, b.o.UUID, root, more...)
	} else {
		xml, err = b.render(append([]domain.Disk{root}, more...))
	}
	if err != nil {
		return err
	}
	return domain.Define(ctx, b.conn, b.name, b.o.UUID, xml)
}

func (b *boot) render(disks []domain.Disk) (xml string, err error) {
	var taken []string
	for i := range disks {
		disks[i].Target = domain.FreeTarget(taken)
		taken = append(taken, disks[i].Target)
	}
	m := domain.Machine{
		Name: b.name, UUID: b.o.UUID, Type: b.h.cfg.VirtType,
		Memory: b.o.Memory, VCPUs: b.o.VCPUs, Networks: b.o.Networks, Disks: disks,
	}
	if m.Type == "" {
		if m.Type, err = domain.VirtType(b.conn); err != nil {
			return "", err
		}
	}
	return m.XML()
}

func (b *boot) start(ctx context.Context) error { return domain.Start(ctx, b.conn, b.name) }

// rbdDisk is an image as a disk of a machine, with the monitors of now.
func (h *Host) rbdDisk(ctx context.Context, cluster *disk.Cluster, n disk.Name, secretUUID string) (domain.Disk, error) {
	monitors, err := cluster.Monitors(ctx)
	return domain.Disk{
		Pool: n.Pool, Image: n.Image,
		User: cluster.User(), SecretUUID: secretUUID,
		Monitors: monitors, Conf: cluster.Conf(),
	}, err
}

// warnCachePolicy tells of a guest whose cache='writeback' would not write back:
// since Octopus librbd's own default is writearound.
func (h *Host) warnCachePolicy(op, name string, cluster *disk.Cluster) {
	if policy, err := cluster.Option("rbd_cache_policy"); err == nil && policy != "writeback" {
		h.emit(Event{Kind: Warning, Op: op, Object: name,
			Detail: "rbd cache policy is " + policy + ": for write-back, put 'rbd cache policy = writeback' into [client] of " + cluster.Conf()})
	}
}
