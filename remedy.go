// Remedies: what brings an interrupted workflow to an end, found in its plan and
// done by another process.

package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

// errThere is a repair that another host must do.
var errThere = errors.New("it takes that host's libvirt")

// raced says that somebody else was faster to take an operation over.
func raced(err error) bool {
	var held *disk.HeldError
	return errors.As(err, &held) || errors.Is(err, disk.ErrTaken)
}

// repairOperation takes over an operation whose process is gone and makes it
// happen, or not have happened. What cannot be done now stays in the journal. What
// was to be done on the host without is void: who could write there is fenced.
func (h *Host) repairOperation(ctx context.Context, on *session, found *disk.Operation, without string) error {
	p, err := parsePlan(found)
	if err != nil {
		return err
	}
	all := remedies(p)
	for _, a := range all {
		if err := h.reachable(ctx, on, a, without); err != nil {
			return failed("repair", found.Object, err)
		}
	}
	o := &opened{Operation: *found, h: h, on: on, plan: p, touched: true}
	o.seen = time.Now().Round(0)
	if err := on.cluster.TakeOver(ctx, &o.Operation); err != nil {
		return err
	}
	h.emit(Event{Kind: Note, Op: "repair", Object: o.Object, Detail: fmt.Sprintf("%s %s was interrupted", found.Kind, found.Object)})
	var steps []step
	for _, at := range stages(p) {
		for i, a := range at.actions {
			do := func(ctx context.Context) error { return h.act(ctx, on, a) }
			switch {
			case without != "" && a.Host == without:
				do = func(ctx context.Context) error { return h.void(ctx, on, a) }
			case a.Verb == actStart || a.Verb == actPowerOn || a.Verb == actRestart:
				do = func(ctx context.Context) error { return h.tryStart(ctx, on, a) }
			}
			last := i == len(at.actions)-1
			steps = append(steps, step{name: "repair", detail: says(a.String()), do: func(ctx context.Context) error {
				if err := o.sure(ctx); err != nil {
					return err
				}
				if err := do(ctx); err != nil || !last {
					return err
				}
				o.plan.Begun = at.then
				return o.write(ctx)
			}})
		}
	}
	err = h.run(ctx, "repair", o.Object, steps...)
	if e := (*Error)(nil); errors.As(err, &e) {
		if !errors.Is(err, domain.ErrPending) {
			return o.stop(ctx, e, true)
		}
		// The guest decides when; until then the volume is the machine's.
		h.emit(Event{Kind: Warning, Op: "repair", Object: o.Object, Detail: e.Message() + "; to finish:  vmdisk detach", Err: e})
	}
	if without != "" {
		o.plan.VM = "" // its record is that host's; evacuate needs it as it is
	}
	return o.end(ctx)
}

// repairLeft brings to an end what was interrupted on a machine, by its name or UUID,
// or on a volume, and says whether there was anything.
func (h *Host) repairLeft(ctx context.Context, on *session, pool, name string) (repaired bool, err error) {
	return h.repairThose(ctx, on, pool, func(o disk.Operation) bool { return slices.Contains(o.Leases, pool+"/"+name) })
}

// repairThose brings those interrupted workflows to an end that which says yes to.
func (h *Host) repairThose(ctx context.Context, on *session, pool string, which func(disk.Operation) bool) (repaired bool, err error) {
	if h.unwritten {
		return false, nil
	}
	all, err := on.cluster.Operations(ctx, pool)
	if err != nil {
		return false, err
	}
	for _, o := range all {
		if !which(o) {
			continue
		}
		alive, err := on.cluster.Alive(ctx, &o)
		if err == nil && alive == disk.Gone {
			err = h.repairOperation(ctx, on, &o, "")
			repaired = repaired || err == nil
		}
		if err != nil && !raced(err) {
			return repaired, err
		}
	}
	return repaired, nil
}

// reachable makes sure that an action can be done from here.
func (h *Host) reachable(ctx context.Context, on *session, a action, without string) error {
	if a.Store {
		_, err := h.backups(ctx) // by whom it is taken over is fenced with this connection, too
		return err
	}
	if a.Host == "" || a.Verb == actMove || a.Verb == actTake || without != "" && a.Host == without {
		return nil
	}
	if a.Verb == actThaw {
		var err error
		if a, err = h.wherever(ctx, on, a); err != nil {
			return err
		}
	}
	if err := on.openHost(ctx, h); err != nil {
		return err
	}
	if a.Host == on.host || a.URI != "" {
		return nil
	}
	return &disk.Error{Object: a.String(), Kind: disk.ErrInUse, Err: errThere, Reason: "it takes the libvirt of " + a.Host}
}

// void is in place of an action with the libvirt of a host that does not answer:
// whoever has the image open, or the machine's, must not write any more.
func (h *Host) void(ctx context.Context, on *session, a action) error {
	var images []disk.Name
	switch {
	case a.Verb == actSettleMove:
		return h.settleVoid(ctx, on, a)
	case a.In != nil:
		return h.voidThere(ctx, a)
	case a.Verb == actFollow:
		return h.followVoid(ctx, on.cluster, a.VM)
	case a.Verb == actPutInImage, a.Verb == actPutInCeph, a.Verb == actPutInFile:
		return h.placeBack(ctx, on, a)
	case a.Verb == actAbortCopy && a.Image != "": // QEMU has it open
	case a.Verb != actPowerOff && a.Verb != actUnplug && a.Verb != actSettle:
		return nil
	}
	switch {
	case a.Image != "":
		n, err := disk.ParseName(a.Image, "")
		if err != nil {
			return err
		}
		images = []disk.Name{n}
	default:
		m, err := on.cluster.Machine(ctx, h.cfg.VMPool, a.VM)
		if gone(err) != nil {
			return err
		}
		m.UUID = a.VM // it may have no record
		if images, err = h.imagesOf(ctx, on.cluster, m); err != nil {
			return err
		}
	}
	return shutOut(ctx, on.cluster, images...)
}

// shutOut keeps everybody who has images open from writing to them. None is fine.
func shutOut(ctx context.Context, cluster *disk.Cluster, images ...disk.Name) error {
	for _, n := range images {
		use, err := cluster.Use(ctx, n)
		if err == nil {
			err = fenceAll(ctx, cluster, use.Addrs(), disk.FenceTime)
		}
		if err == nil && use.Lock != "" {
			err = cluster.BreakLock(ctx, n, use.Lock)
		}
		if gone(err) != nil {
			return err
		}
	}
	return nil
}

// tryStart starts a machine. What keeps it from starting is told and no error: the
// machine is as it is to be, and can be started when that is seen to.
func (h *Host) tryStart(ctx context.Context, on *session, a action) error {
	err := h.act(ctx, on, a)
	if err != nil && !errors.Is(err, domain.ErrTimeout) && ctx.Err() == nil {
		h.emit(Event{Kind: Warning, Op: "repair", Object: a.Name, Detail: a.Name + " does not start: " + err.Error(), Err: err})
		return nil
	}
	return err
}

// stage is what is done about one step of an interrupted plan.
type stage struct {
	actions []action
	then    int // how many steps are begun when that is done
}

// stages bring an interrupted plan to an end: forward, if it was past the point of no
// return, else back.
func stages(p plan) (all []stage) {
	add := func(actions []action, then int) {
		if len(actions) > 0 {
			all = append(all, stage{actions, then})
		}
	}
	if p.Committed {
		for i := max(p.Begun-1, 0); i < len(p.Steps); i++ {
			add(p.Steps[i].On, min(i+2, len(p.Steps)))
		}
		return all
	}
	for i, s := range slices.Backward(p.Steps[:p.Begun]) {
		add(s.Back, i)
	}
	return all
}

// remedies are the actions of all stages.
func remedies(p plan) (all []action) {
	for _, s := range stages(p) {
		all = append(all, s.actions...)
	}
	return all
}
