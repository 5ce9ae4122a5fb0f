// What was left on a host from which a machine was taken: cleared away there, and
// its clients let in again when they are dead.

package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

// isLeft says that what runs on a host from which the machine was taken is what was
// left there, and not one that came back: a fenced client watches nothing.
func isLeft(m disk.Machine, use disk.Use) bool {
	known, others := sides(m, use)
	return len(known) > 0 || len(others) == 0
}

// leftBehind is a machine that was taken from this host while it did not answer.
func (r *repair) leftBehind(m disk.Machine, info domain.Info, defined bool) *Finding {
	f := finding(info, LeftBehind)
	f.Detail = "when it was taken to " + m.Host + ", at " + m.LeftBehind(r.host).Since.Local().Format("2006-01-02 15:04:05")
	var all []action
	if defined {
		if info.Running {
			all = append(all, action{Verb: actPowerOff, VM: info.UUID, Name: info.Name, Host: r.host})
		}
		if m.Host == r.host {
			f.Detail = "by an evacuation that was given up: its clients are fenced"
			f.Next = "then:  vmdisk start " + info.Name
		} else {
			all = append(all, action{Verb: actUndefine, VM: info.UUID, Name: info.Name, Host: r.host})
		}
	}
	r.remedy(f, m, all...)
	end := f.repair
	f.repair = func(ctx context.Context) error {
		if len(all) > 0 {
			if err := end(ctx); err != nil {
				return err
			}
		}
		if err := r.proveDead(f); err != nil {
			return err
		}
		return r.lift(ctx, f, r.host, m)
	}
	if fenced := m.LeftBehind(r.host).Fenced; len(fenced) > 0 {
		f.Remedies = append(f.Remedies, "lift the fences of "+strings.Join(fenced, ", "))
	}
	return f
}

// proveDead looks for a QEMU that libvirt does not know of.
func (r *repair) proveDead(f *Finding) error {
	for _, p := range domain.Processes(f.UUID) {
		if sameHost(p.Host, r.host) {
			return &disk.Error{Op: "lift the fences of", Object: "VM " + f.VM, Kind: disk.ErrInUse,
				Reason: "its QEMU still lives", Holders: []string{fmt.Sprintf("pid %d", p.PID)}}
		}
	}
	return nil
}

// stillFenced are the clients of a QEMU that is proven dead and could not be let in.
func (r *repair) stillFenced(m disk.Machine) *Finding {
	for _, b := range m.Behind {
		if !b.Dead {
			continue
		}
		f := finding(domain.Info{Name: m.Name, UUID: m.UUID}, LeftBehind)
		f.Detail = "on " + b.Host + " and is gone from there, but for its fences"
		f.Remedies = []string{"lift the fences of " + strings.Join(b.Fenced, ", ")}
		f.repair = func(ctx context.Context) error { return r.lift(ctx, f, b.Host, m) }
		return f
	}
	return nil
}

// lift lets the clients of a host in again, now that they are dead, and writes down
// which it could not: that takes more than the caps of a client of RBD.
func (r *repair) lift(ctx context.Context, f *Finding, host string, m disk.Machine) error {
	fences, err := r.cluster.Fences(ctx)
	if err != nil {
		return err
	}
	var fenced, still []string
	dead := false
	for _, b := range m.Behind {
		if b.Host == host {
			fenced, dead = b.Fenced, b.Dead
		}
	}
	for _, addr := range fenced {
		if !isFenced(fences, addr) {
			continue
		}
		err := r.cluster.Unfence(ctx, addr)
		if errors.Is(err, disk.ErrPermission) {
			still = append(still, addr)
			continue
		}
		if err != nil {
			return err
		}
	}
	if len(still) > 0 {
		f.Remedies = f.Remedies[:len(f.Remedies)-1] // lifting, which is the last
		f.Next = "as client.admin:  ceph osd blocklist rm " + strings.Join(still, "; ceph osd blocklist rm ")
		if dead && len(still) == len(fenced) {
			return errNothing
		}
	}
	return r.h.perform(ctx, r.task(f, m, step{name: "forget", detail: says(f.VM + " on " + host), do: func(ctx context.Context) error {
		now, err := r.cluster.Machine(ctx, r.h.cfg.VMPool, f.UUID)
		if err != nil {
			return err
		}
		now.Bury(host, still)
		return r.cluster.SaveMachine(ctx, r.h.cfg.VMPool, now)
	}}))
}
