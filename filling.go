// Filling: a machine that runs on a disk whose data is not in Ceph yet, and its data
// brought there behind it.

package vmdisk

import (
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

// Filled is a disk whose data is all in Ceph.
type Filled struct {
	VM      string        `json:"vm"`
	Disk    string        `json:"disk"`   // POOL/IMAGE
	Origin  *disk.Origin  `json:"origin"` // nil if there was nothing to do
	Elapsed time.Duration `json:"elapsed_ns"`
}

// FillStatus is how far a machine's disk is.
type FillStatus struct {
	VM      string        `json:"vm"`
	Disk    string        `json:"disk"`         // POOL/IMAGE
	Filling *disk.Filling `json:"filling"`      // nil: its data is all in Ceph
	By      *disk.Process `json:"by,omitempty"` // who sees to it; nil is nobody
}

// filling is the state that the steps share.
type filling struct {
	session
	h    *Host
	vm   domain.Info
	root disk.Name
	now  *disk.Filling // nil: it is whole
}

// Fill brings what the root disk of a machine that was booted from a file or a URL does
// not have in Ceph yet there, while the machine runs or not, and then parts it from its
// origin. It blocks for as long as that takes; Progress events tell how far it is. What
// is whole already is fine. The machine may be started, stopped and, unless its origin is
// a file, moved meanwhile.
//
// Interrupted, wherever, it goes on when it is called again; nothing is to be repaired.
// If ctx ends, or [Host.AbortFill] says so, it returns, which is [migrate.ErrAborted] if
// that was it; librbd cannot be told to stop, and what it was told to do it still does,
// in QEMU or in this process. An origin that is not there any more, or was changed, is
// [disk.ErrOriginAway]: the guest's reads of what is not in Ceph yet fail until it is
// back as it was, and QEMU stops the guest at the first.
//
// Similar to: rbd migration execute, rbd migration commit.
func (h *Host) Fill(ctx context.Context, vm string) (Filled, error) {
	const op = "fill"
	begin := time.Now()
	f := &filling{h: h}
	defer f.end()
	if err := f.prepare(ctx, vm); err != nil {
		return Filled{}, failed(op, vm, err)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	err := h.perform(ctx, task{
		op: op, object: f.vm.Name, on: &f.session, pool: f.root.Pool, leases: []string{f.root.String()},
		check: f.look, steps: f.steps,
		stop: func(by disk.Process) { stop(&abortedError{by}) },
	})
	done := Filled{VM: f.vm.Name, Disk: f.root.String(), Elapsed: time.Since(begin)}
	if f.now != nil {
		done.Origin = &f.now.Origin
	}
	return done, f.explain(ctx, err)
}

func (f *filling) prepare(ctx context.Context, vm string) (err error) {
	if f.vm, err = f.find(ctx, f.h, vm); err != nil {
		return err
	}
	f.root, _, err = rootOf(f.vm)
	return err
}

// look finds out how far it is, and whether the origin can be read from here.
func (f *filling) look(ctx context.Context) error {
	now, err := f.h.fillingOf(ctx, f.cluster, f.root)
	if err != nil || now == nil {
		return err
	}
	f.now = now
	return f.h.originHere(&f.session, now.Origin)
}

func (f *filling) steps() []step {
	if f.now == nil {
		return nil
	}
	from := f.now.Origin.Where
	return []step{
		{name: "fill", detail: says("from " + from), do: func(ctx context.Context) error {
			return f.cluster.Fill(ctx, f.root, f.h.shows("fill", f.vm.Name, "fill", f.now.Origin.Size))
		}},
		{name: "part", detail: says("from " + from), do: func(ctx context.Context) error {
			return f.cluster.PartFromOrigin(ctx, f.root)
		}},
	}
}

// explain says of an error who wanted it so, and how it is with the machine.
func (f *filling) explain(ctx context.Context, err error) error {
	var e *Error
	var aborted *abortedError
	var held *disk.HeldError
	if !errors.As(err, &e) || errors.As(err, &held) || f.now == nil {
		return err
	}
	if errors.As(context.Cause(ctx), &aborted) && errors.Is(err, context.Canceled) {
		e.Err = aborted
	}
	e.State = f.vm.Name + " is as it was; what is not in Ceph yet it reads from " + f.now.Origin.Where
	e.Next = "to go on:  vmdisk fill " + f.vm.Name
	if errors.Is(err, disk.ErrOriginAway) {
		e.Next = "when that is back as it was:  vmdisk fill " + f.vm.Name
	}
	return err
}

// Filling says how far the root disk of a machine is.
//
// Similar to: rbd status.
func (h *Host) Filling(ctx context.Context, vm string) (FillStatus, error) {
	f := &filling{h: h}
	defer f.end()
	s, _, err := f.status(ctx, vm)
	return s, failed("inspect", vm, err)
}

func (f *filling) status(ctx context.Context, vm string) (s FillStatus, by *disk.Operation, err error) {
	if err = f.prepare(ctx, vm); err != nil {
		return s, nil, err
	}
	s = FillStatus{VM: f.vm.Name, Disk: f.root.String()}
	if s.Filling, err = f.h.fillingOf(ctx, f.cluster, f.root); err != nil {
		return s, nil, err
	}
	by, err = f.filler(ctx)
	if by != nil {
		s.By = &by.Holder
	}
	return s, by, err
}

// filler is the operation that fills the disk, if its process is not gone.
func (f *filling) filler(ctx context.Context) (*disk.Operation, error) {
	all, err := f.cluster.Operations(ctx, f.root.Pool)
	if err != nil {
		return nil, err
	}
	for _, o := range all {
		if !isFilling(o, f.root) {
			continue
		}
		alive, err := f.cluster.Alive(ctx, &o)
		if err != nil || alive == disk.Gone {
			return nil, err
		}
		return &o, nil
	}
	return nil, nil
}

// AbortFill has a filling ended that another process does, and blocks until that has, at
// most Config.Timeout or 30 s, whichever is longer; or else that is [domain.ErrTimeout].
// The machine runs on, and its disk reads from its origin as before. None under way is
// [disk.ErrNotFound].
func (h *Host) AbortFill(ctx context.Context, vm string) (FillStatus, error) {
	const op = "abort filling of"
	f := &filling{h: h}
	defer f.end()
	s, by, err := f.status(ctx, vm)
	if err == nil && by == nil {
		err = &disk.Error{Object: "VM " + vm, Kind: disk.ErrNotFound, Reason: "nobody fills its disk"}
	}
	if err != nil {
		return s, failed(op, vm, err)
	}
	limit, cancel := context.WithTimeout(ctx, h.patience())
	defer cancel()
	for by != nil {
		if _, err = f.cluster.AskToStop(limit, by); err == nil {
			err = sleep(limit, abortEvery)
		}
		if err == nil {
			by, err = f.filler(limit)
		}
		if err != nil {
			if ctx.Err() == nil && limit.Err() != nil {
				err = &domain.Error{Op: "abort", Object: "filling of " + s.VM, Kind: domain.ErrTimeout, Reason: "it is not over within " + h.patience().String()}
			}
			return s, failed(op, vm, err)
		}
	}
	s, _, err = f.status(ctx, vm)
	return s, failed(op, vm, err)
}

// fillingOf is how far a disk is, or nil if its data is all in Ceph.
func (h *Host) fillingOf(ctx context.Context, cluster *disk.Cluster, n disk.Name) (*disk.Filling, error) {
	now, err := cluster.Filling(ctx, n)
	if errors.Is(err, disk.ErrNotFilling) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &now, nil
}

// originHere refuses an origin that is a file of another host than on's, or that is to
// be read from another computer: there may be another file there of the same name.
func (h *Host) originHere(on *session, o disk.Origin) error {
	if disk.IsURL(o.Where) {
		return nil
	}
	e := &disk.Error{Object: o.Where, Kind: disk.ErrOriginAway, Reason: "the disk's data is in that file of " + o.Host + ", and not here"}
	if o.Host != "" && o.Host != on.host {
		return e
	}
	if own, err := os.Hostname(); err == nil && sameHost(own, on.host) {
		return nil
	}
	u, err := url.Parse(h.cfg.URI)
	if err == nil && (u.Host == "" || u.Hostname() == "localhost" || net.ParseIP(u.Hostname()).IsLoopback()) {
		return nil
	}
	e.Kind, e.Reason = disk.ErrInvalid, "is a file of this computer, and the machine is to run on "+on.host+": work there, or name a URL"
	return e
}

// whole refuses a machine whose root disk is being filled.
func (h *Host) whole(ctx context.Context, cluster *disk.Cluster, vm string, n disk.Name) error {
	now, err := h.fillingOf(ctx, cluster, n)
	if err == nil && now != nil {
		err = &disk.Error{Object: n.String(), Kind: disk.ErrInUse, Err: &unfilledError{vm}, Reason: "is being filled from " + now.Origin.Where}
	}
	return gone(err)
}

// unfilledError is a machine whose disk must be filled first.
type unfilledError struct{ vm string }

func (u *unfilledError) Error() string { return "the disk of " + u.vm + " is not whole" }

// movable refuses to take a machine to another host if the rest of its disk is in a file.
func (h *Host) movable(ctx context.Context, cluster *disk.Cluster, vm string, images []disk.Name) error {
	for _, n := range images {
		now, err := h.fillingOf(ctx, cluster, n)
		if gone(err) != nil {
			return err
		}
		if now != nil && !disk.IsURL(now.Origin.Where) {
			return &disk.Error{Object: n.String(), Kind: disk.ErrInUse, Err: &unfilledError{vm},
				Reason: "is being filled from " + now.Origin.Where + ", which only " + now.Origin.Host + " has"}
		}
	}
	return nil
}

// rootLease is what a filling holds, and what ends the disk needs too.
func (h *Host) rootLease(uuid string) string {
	return disk.Name{Pool: h.cfg.VMPool, Image: disk.RootDiskName(uuid)}.String()
}
