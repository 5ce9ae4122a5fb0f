// Evacuate: a machine away from a host that is dead or cut off. Whoever could still
// write is fenced first; it starts here after.

package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

// evacuateTimeout is how long the host that is to be dead may take to show that it
// is not.
const evacuateTimeout = 5 * time.Second

// EvacuateOptions say from where a machine is taken.
type EvacuateOptions struct {
	// From is the host that does not answer: its name as in the machine's record, or
	// its libvirt URI.
	From string
	// NoStart leaves the machine defined and shut off.
	NoStart bool
	// Force does not ask whether From answers. Its clients are fenced all the same.
	Force bool
}

// evacuation is the state that the steps share.
type evacuation struct {
	session
	h      *Host
	o      EvacuateOptions
	m      disk.Machine
	images []disk.Name
	fenced []string
	broken []string
	uri    string // how others reach this host's libvirt, or ""
}

// Evacuate takes a machine from a host whose libvirt does not answer, and starts it
// on this one, from the definition that is kept in Ceph. In this order: the
// machine's lease; every client that could still write to its disks (lock owners,
// watchers, and the addresses recorded when it started) is fenced for a year; the
// lock is broken; nobody watches the disks any more; the record says that it is
// here; volumes, secret, definition, start. A step that cannot be proven ends it
// with an error that says which, and nothing is started.
//
// A host whose libvirt answers is [disk.ErrInUse]: there the machine can be migrated
// or started; so is one of which that is not known, unless o.Force. Fences stay until [Host.Repair] on that host has proven its QEMU dead.
//
// Similar to: nova evacuate, after ceph osd blocklist add.
func (h *Host) Evacuate(ctx context.Context, vm string, o EvacuateOptions) (VM, error) {
	const op = "evacuate"
	e := &evacuation{h: h, o: o}
	defer e.end()
	if err := e.prepare(ctx, vm); err != nil {
		return VM{}, failed(op, vm, err)
	}
	err := h.perform(ctx, task{
		op: op, object: e.m.Name, on: &e.session, pool: h.cfg.VMPool, leases: e.leases(),
		vm: e.m.UUID, anywhere: true, without: e.m.Host,
		check: e.check, steps: e.steps,
	})
	if err != nil {
		return VM{}, err
	}
	return h.outcome(ctx, e.conn, e.m.UUID)
}

// prepare reads the record and makes sure that the host does not answer.
func (e *evacuation) prepare(ctx context.Context, vm string) (err error) {
	if e.o.From == "" {
		return badInput("the host that %s is to be taken from is not said", vm)
	}
	if err = e.open(ctx, e.h); err != nil {
		return err
	}
	if e.uri, err = domain.RemoteAddress(e.conn); err != nil {
		return err
	}
	if e.m, err = e.cluster.FindMachine(ctx, e.h.cfg.VMPool, vm); err != nil {
		if !errors.Is(err, disk.ErrNotFound) {
			return err
		}
		return &disk.Error{Object: "VM " + vm, Kind: disk.ErrNotFound, Reason: "has no record in pool " + e.h.cfg.VMPool +
			": no vmdisk ever changed it, and its definition is not known"}
	}
	if err := e.fromHost(); err != nil {
		return err
	}
	if e.images, err = e.h.imagesOf(ctx, e.cluster, e.m); err != nil {
		return err
	}
	if len(e.images) == 0 {
		return &disk.Error{Object: "VM " + e.m.Name, Kind: disk.ErrInvalid, Reason: "has no disk in Ceph"}
	}
	return e.deaf(ctx)
}

// fromHost makes sure that both mean the same host.
func (e *evacuation) fromHost() error {
	from := e.o.From
	if u, err := url.Parse(from); err == nil && u.Host != "" && from != e.m.URI {
		from = u.Hostname()
	}
	switch {
	case e.m.Host == e.host && e.m.LeftBehind(e.host) == nil:
		return &domain.Error{Object: "VM " + e.m.Name, Kind: domain.ErrExists, Reason: "is on this host, " + e.host + ", already"}
	case from != e.m.Host && from != e.m.URI:
		return badInput("%s is not on %s; %s", e.m.Name, e.o.From, whereabouts(e.m))
	}
	return nil
}

// deaf makes sure that the libvirt of the machine's host does not answer.
func (e *evacuation) deaf(ctx context.Context) error {
	if e.o.Force {
		return nil
	}
	uri, err := e.h.uriOf(e.m, e.o.From)
	if err != nil {
		return err
	}
	a, err := domain.Ask(ctx, uri, e.m.UUID, evacuateTimeout)
	// A refusal proves something only where it is known who refused.
	known := e.m.URI != "" || strings.Contains(e.o.From, "://")
	switch {
	case errors.Is(err, domain.ErrSilent) && (known || !errors.Is(err, domain.ErrRefused)):
		e.h.emit(Event{Kind: Note, Op: "evacuate", Object: e.m.Name, Detail: "libvirt of " + e.m.Host + " does not answer"})
		return nil
	case errors.Is(err, domain.ErrUnreachable):
		return &disk.Error{Object: "VM " + e.m.Name, Kind: disk.ErrInUse, Err: errUnasked,
			Reason: "it is not proven that " + e.m.Host + " does not answer: " + err.Error()}
	case err != nil:
		return err
	}
	return &disk.Error{Object: "VM " + e.m.Name, Kind: disk.ErrInUse, Err: &answersError{e.m.Name, uri, a.Running},
		Reason: "libvirt of " + a.Host + " answers", Holders: []string{a.State + " on " + a.Host}}
}

// uriOf is how the libvirt of a machine's host is reached from here.
func (h *Host) uriOf(m disk.Machine, from string) (string, error) {
	switch {
	case strings.Contains(from, "://"):
		return from, nil
	case m.URI != "":
		return m.URI, nil
	}
	return domain.RemoteURI(h.cfg.URI, m.Host)
}

// errUnasked is a host of which it is not known whether it answers.
var errUnasked = errors.New("cannot be asked")

// answersError is a host that is to be dead and is not.
type answersError struct {
	vm, uri string
	running bool
}

func (a *answersError) Error() string { return "libvirt answers at " + a.uri }

func (a *answersError) next() string {
	if a.running {
		return "it can be moved:  vmdisk --connect " + a.uri + " migrate " + a.vm + " DEST"
	}
	return "start it there:  vmdisk --connect " + a.uri + " start " + a.vm
}

// leases are the machine's and those of what it has attached.
func (e *evacuation) leases() []string {
	all := []string{e.h.cfg.VMPool + "/" + e.m.UUID, e.h.cfg.VMPool + "/" + e.m.Name}
	for _, n := range e.images {
		if !strings.HasPrefix(n.Image, e.m.UUID+"_") {
			all = append(all, n.String())
		}
	}
	return all
}

// check reads the record again, now that nobody else changes it, and refuses what
// would fail after the machine is fenced.
func (e *evacuation) check(ctx context.Context) error {
	m, err := e.cluster.Machine(ctx, e.h.cfg.VMPool, e.m.UUID)
	if err != nil {
		return err
	}
	if m.Host != e.m.Host || m.Generation != e.m.Generation {
		return &disk.Error{Object: "VM " + m.Name, Kind: disk.ErrInUse, Reason: "has moved meanwhile; " + whereabouts(m)}
	}
	e.m = m
	if e.images, err = e.h.imagesOf(ctx, e.cluster, m); err != nil {
		return err
	}
	all, err := recordedDisks(ctx, e.cluster, m)
	if err == nil {
		err = refuseAbroad(m.Name, all)
	}
	if err != nil {
		return err
	}
	for _, key := range []string{m.UUID, m.Name} {
		has, err := domain.Find(ctx, e.conn, key)
		switch {
		case errors.Is(err, domain.ErrNotFound):
		case err != nil:
			return err
		case has.UUID != m.UUID:
			return &domain.Error{Object: "VM " + m.Name, Kind: domain.ErrExists, Reason: "there is another of that name on this host, " + has.UUID}
		case has.Running:
			return &disk.Error{Object: "VM " + m.Name, Kind: disk.ErrInUse, Reason: "is " + has.State + " on this host already; " + whereabouts(m)}
		}
	}
	return e.h.movable(ctx, e.cluster, m.Name, e.images)
}

func (e *evacuation) steps() []step {
	forward := func(name, detail string, a action, commit bool) step {
		s := e.h.forward(&e.session, name, detail, a)
		s.commit = commit
		return s
	}
	here := func(v verb) action { return action{Verb: v, VM: e.m.UUID, Name: e.m.Name, Host: e.host, URI: e.uri} }
	take := here(actTake)
	take.To = e.m.Host
	steps := []step{
		{name: "fence", detail: func() string { return fmt.Sprintf("%s of %s", count(len(e.fenced), "client"), e.m.Host) }, do: e.fence},
		{name: "unlock", detail: func() string { return count(len(e.broken), "lock") + " of " + e.m.Host }, do: e.unlock},
		{name: "wait", detail: says("until nobody watches"), do: e.wait},
		forward("take", e.m.Host+" → "+e.host, take, true),
	}
	for _, n := range e.images {
		if !strings.HasPrefix(n.Image, e.m.UUID+"_") {
			a := here(actMove)
			a.Image = n.String()
			steps = append(steps, forward("move", n.String(), a, false))
		}
	}
	steps = append(steps, forward("define", e.m.Name, here(actDefine), false))
	if e.m.Running && !e.o.NoStart {
		steps = append(steps, forward("start", e.m.Name, here(actStart), false))
	}
	return steps
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// fence keeps everybody out who could still write. Who that is, is written down
// before, so that it can be lifted whatever happens.
func (e *evacuation) fence(ctx context.Context) error {
	e.fenced = slices.Clone(e.m.Clients)
	for _, n := range e.images {
		use, err := e.cluster.Use(ctx, n)
		if errors.Is(err, disk.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		for _, addr := range use.Addrs() {
			if !slices.Contains(e.m.Clients, addr) && !slices.Contains(e.fenced, addr) {
				e.h.emit(Event{Kind: Warning, Op: "evacuate", Object: e.m.Name,
					Detail: addr + " has " + n.String() + " open and is not in the record: it is fenced too"})
			}
			e.fenced = append(e.fenced, addr)
		}
	}
	slices.Sort(e.fenced)
	e.fenced = slices.Compact(e.fenced)
	m := e.m
	m.Leave(m.Host, e.fenced)
	if err := e.cluster.SaveMachine(ctx, e.h.cfg.VMPool, m); err != nil {
		return err
	}
	e.m = m
	return fenceAll(ctx, e.cluster, e.fenced, disk.FenceTime)
}

// unlock breaks the locks that the fenced clients have.
func (e *evacuation) unlock(ctx context.Context) error {
	for _, n := range e.images {
		use, err := e.cluster.Use(ctx, n)
		switch {
		case errors.Is(err, disk.ErrNotFound):
		case err != nil:
			return err
		case use.Lock == "":
		case !slices.Contains(e.fenced, use.Lock):
			return &disk.Error{Op: "break lock of", Object: n.String(), Kind: disk.ErrInUse,
				Reason: "somebody who is not fenced has taken it", Holders: []string{"locked by " + use.Lock}}
		default:
			if err := e.cluster.BreakLock(ctx, n, use.Lock); err != nil {
				return err
			}
			e.broken = append(e.broken, n.String())
		}
	}
	return nil
}

// wait proves that nobody has a disk open any more.
func (e *evacuation) wait(ctx context.Context) error {
	for _, n := range e.images {
		if err := e.cluster.WaitUnused(ctx, n); err != nil && !errors.Is(err, disk.ErrNotFound) {
			return err
		}
	}
	return nil
}
