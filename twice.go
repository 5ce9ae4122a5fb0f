// Machines that are not where their record says: one image, two QEMUs; or a record
// that is out of date, because the machine was moved without vmdisk.

package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

// What a [Finding] can say.
const (
	RunsTwice  = "runs twice"
	LeftBehind = "was left behind"
	Stale      = "its record is out of date"
	DefinedToo = "is defined here too"
)

// aliveAfter is how long a watch must last to prove that its client lives: that of a
// dead one expires after 30 s.
const aliveAfter = 35 * time.Second

// askTimeout is how long another host's libvirt may take to say what it has.
const askTimeout = 3 * time.Second

// Finding is a machine that is not as it should be.
type Finding struct {
	VM       string   `json:"vm"`
	UUID     string   `json:"uuid"`
	What     string   `json:"what"`
	Detail   string   `json:"detail"`
	Remedies []string `json:"remedies"`
	Outcome

	repair func(context.Context) error // nil if there is nothing that vmdisk may do
}

// machines goes through this host's machines and those that were taken from it.
func (r *repair) machines(ctx context.Context) error {
	for _, info := range r.here {
		m, known := r.records[info.UUID]
		if !known || r.o.VM != "" && info.UUID != r.vm.UUID || r.busy(m) {
			continue
		}
		f, err := r.judge(ctx, m, info)
		if err != nil {
			return err
		}
		r.settle(ctx, f)
	}
	for _, m := range r.records {
		gone := !slices.ContainsFunc(r.here, func(info domain.Info) bool { return info.UUID == m.UUID })
		if r.o.VM != "" && m.UUID != r.vm.UUID || r.busy(m) {
			continue
		}
		switch {
		case gone && m.LeftBehind(r.host) != nil:
			r.settle(ctx, r.leftBehind(m, domain.Info{Name: m.Name, UUID: m.UUID}, false))
		case gone && m.Host == r.host:
			f, err := r.vanished(ctx, m)
			if err != nil {
				return err
			}
			r.settle(ctx, f)
		}
		r.settle(ctx, r.stillFenced(m))
	}
	slices.SortFunc(r.Machines, func(a, b Finding) int { return strings.Compare(a.VM, b.VM) })
	return nil
}

// busy says whether a workflow changes the machine, and with it its record.
func (r *repair) busy(m disk.Machine) bool {
	_, busy := r.leased[r.h.cfg.VMPool+"/"+m.UUID]
	return busy
}

// settle does what a finding asks for.
func (r *repair) settle(ctx context.Context, f *Finding) {
	if f == nil {
		return
	}
	if f.repair != nil && !r.o.DryRun {
		if err := f.repair(ctx); !errors.Is(err, errNothing) {
			next := f.Next
			if f.note(err); f.Next == "" {
				f.Next = next
			}
		}
	}
	r.Machines = append(r.Machines, *f)
}

// judge compares a machine of this host with its record.
func (r *repair) judge(ctx context.Context, m disk.Machine, info domain.Info) (*Finding, error) {
	left := m.LeftBehind(r.host) != nil
	switch {
	case left && !info.Running:
		return r.leftBehind(m, info, true), nil
	case m.Host == r.host && !info.Running && !m.Running:
		return nil, nil
	}
	state, err := domain.Inspect(ctx, r.conn, info.UUID)
	if errors.Is(err, domain.ErrNotFound) || err == nil && state.Moving {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	use, err := r.rootUse(ctx, info)
	switch {
	case err != nil:
		return nil, err
	case left && isLeft(m, use):
		return r.leftBehind(m, info, true), nil
	case m.Host == r.host && !left:
		return r.ownMachine(m, info, use), nil
	case info.Running:
		return r.runsElsewhere(ctx, m, info, use)
	}
	return r.definedToo(ctx, m, info)
}

// rootUse is who has the machine's first disk in Ceph open.
func (r *repair) rootUse(ctx context.Context, info domain.Info) (disk.Use, error) {
	for _, d := range info.Disks {
		if d.Pool != "" {
			use, err := r.h.useNow(ctx, r.cluster, disk.Name{Pool: d.Pool, Image: d.Image})
			return use, gone(err)
		}
	}
	return disk.Use{}, nil
}

// sides are the watchers that a record knows, and the others.
func sides(m disk.Machine, use disk.Use) (known, others []string) {
	for _, w := range use.Watchers {
		if slices.Contains(m.Clients, w.Addr) {
			known = append(known, w.Addr)
		} else {
			others = append(others, w.Addr)
		}
	}
	return known, others
}

// ownMachine is one that the record says is here.
func (r *repair) ownMachine(m disk.Machine, info domain.Info, use disk.Use) *Finding {
	known, others := sides(m, use)
	f := finding(info, "")
	switch {
	case info.Running && len(known) > 0 && len(others) > 0:
		f.What, f.Detail = RunsTwice, "its disk is open from "+strings.Join(others, ", ")+" too, not from this host"
		f.Next = "on the host that this is:  vmdisk repair"
	case info.Running != m.Running, info.Running && len(known) == 0 && len(others) == 1:
		f.What, f.Detail = Stale, info.State+" here, without vmdisk's doing"
		r.correct(f, m)
	default:
		return nil
	}
	return f
}

// runsElsewhere is a machine that runs here and by its record on another host: twice,
// or moved by somebody else than vmdisk.
func (r *repair) runsElsewhere(ctx context.Context, m disk.Machine, info domain.Info, use disk.Use) (*Finding, error) {
	f := finding(info, RunsTwice)
	known, others := sides(m, use)
	if len(known)+len(others) > 1 {
		twice, err := r.alsoRuns(ctx, m, info, len(known) > 0)
		if err != nil {
			f.Detail = "here and, it seems, on " + m.Host + ", which cannot be proven"
			f.Error, f.Next = err.Error(), "vmdisk why "+info.Name
			return f, ctx.Err()
		}
		if twice {
			f.Detail = "here and on " + m.Host + ", to which it belongs"
			stop := action{Verb: actPowerOff, VM: info.UUID, Name: info.Name, Host: r.host}
			r.remedy(f, m, stop)
			return f, nil
		}
	}
	f.What, f.Detail = Stale, "it runs here and not on "+m.Host+" any more, without vmdisk's doing"
	r.correct(f, m)
	return f, nil
}

// alsoRuns proves that a machine runs on the host of its record, or that it does
// not. If that host does not say, its client's watch does by lasting.
func (r *repair) alsoRuns(ctx context.Context, m disk.Machine, info domain.Info, watches bool) (bool, error) {
	var err error
	if uri, uriErr := r.h.uriOf(m, ""); uriErr == nil {
		var a domain.Answer
		if a, err = domain.Ask(ctx, uri, m.UUID, askTimeout); err == nil && a.Host == m.Host {
			return a.Running, nil
		}
	}
	if !watches {
		return false, fmt.Errorf("its disk is open twice, and %s does not say whether that is its: %w", m.Host, err)
	}
	r.h.emit(Event{Kind: Note, Op: "repair", Object: info.Name, Detail: "waiting whether its client on " + m.Host + " lives"})
	for begin := time.Now(); time.Since(begin) < aliveAfter; {
		if err := sleep(ctx, time.Second); err != nil {
			return false, err
		}
		use, err := r.rootUse(ctx, info)
		if err != nil {
			return false, err
		}
		if known, _ := sides(m, use); len(known) == 0 {
			return false, nil
		}
	}
	return true, nil
}

// definedToo is a machine that is off here and belongs to another host.
func (r *repair) definedToo(ctx context.Context, m disk.Machine, info domain.Info) (*Finding, error) {
	f := finding(info, DefinedToo)
	f.Detail = "and shut off; it belongs to " + m.Host
	f.Next = "virsh undefine " + info.Name
	uri, err := r.h.uriOf(m, "")
	if err != nil {
		return f, nil
	}
	a, err := domain.Ask(ctx, uri, m.UUID, askTimeout)
	if err == nil && a.Host == m.Host && !a.Defined {
		f.What, f.Detail, f.Next = Stale, "it is defined here and not on "+m.Host+" any more, without vmdisk's doing", ""
		r.correct(f, m)
	}
	return f, ctx.Err()
}

// vanished is a machine that the record says is here, and libvirt does not know.
func (r *repair) vanished(ctx context.Context, m disk.Machine) (*Finding, error) {
	f := finding(domain.Info{Name: m.Name, UUID: m.UUID}, Stale)
	f.Detail = "it is not defined here any more, without vmdisk's doing"
	images, err := r.h.ownImages(ctx, r.cluster, m.UUID)
	if err != nil || len(images) > 0 { // it may be on its way to another host
		return f, err
	}
	f.Detail += ", and has no disks"
	f.Remedies = []string{"forget " + m.Name}
	f.repair = func(ctx context.Context) error {
		return r.h.perform(ctx, r.task(f, m, step{name: "forget", detail: says(m.Name),
			do: func(ctx context.Context) error { return r.cluster.ForgetMachine(ctx, r.h.cfg.VMPool, m.UUID) }}))
	}
	return f, nil
}

func finding(info domain.Info, what string) *Finding {
	return &Finding{VM: info.Name, UUID: info.UUID, What: what, Remedies: []string{}}
}

// correct makes the record say that the machine is here, as it is.
func (r *repair) correct(f *Finding, m disk.Machine) {
	f.Remedies = []string{"record " + f.VM + " on " + r.host}
	f.repair = func(ctx context.Context) error {
		return r.h.perform(ctx, r.task(f, m, step{name: "record", detail: says(f.VM),
			do: func(ctx context.Context) error { return r.h.recordHere(ctx, &r.session, f.UUID, m) }}))
	}
}

// remedy makes actions on this host's libvirt what a finding asks for.
func (r *repair) remedy(f *Finding, m disk.Machine, all ...action) {
	var does []step
	for _, a := range all {
		f.Remedies = append(f.Remedies, a.String())
		does = append(does, step{name: "repair", detail: says(a.String()), on: []action{a},
			do: func(ctx context.Context) error { return r.h.act(ctx, &r.session, a) }})
	}
	f.repair = func(ctx context.Context) error { return r.h.perform(ctx, r.task(f, m, does...)) }
}

// task is a repair of a machine whose record must still be what was judged.
func (r *repair) task(f *Finding, judged disk.Machine, does ...step) task {
	pool := r.h.cfg.VMPool
	return task{
		op: "repair", object: f.VM, on: &r.session, pool: pool, leases: []string{pool + "/" + f.UUID, pool + "/" + f.VM},
		forward: true, steps: steps(does...),
		check: func(ctx context.Context) error {
			m, err := r.cluster.Machine(ctx, pool, f.UUID)
			if err == nil && (m.Host != judged.Host || m.Generation != judged.Generation) {
				err = &disk.Error{Object: "VM " + f.VM, Kind: disk.ErrInUse, Reason: "has moved meanwhile; " + whereabouts(m)}
			}
			return err
		},
	}
}

// sameHost compares host names, of which one may have its domain with it.
func sameHost(a, b string) bool {
	return a == b || strings.HasPrefix(a, b+".") || strings.HasPrefix(b, a+".")
}
