// Repair: what a process left half done is taken back or finished.

package vmdisk

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

// RepairOptions say what is repaired.
type RepairOptions struct {
	VM     string // a name or UUID, and only that machine; "" is everything
	DryRun bool   // only say what would be done
	// RemoveOrphans removes what was left and belongs to nothing any more. A machine
	// that another tool defines on another host and that is shut off is not known
	// here, and its disk is an orphan: look at the list first.
	RemoveOrphans bool
	// OlderThan spares what is younger, for somebody may be about to use it; 0 is an
	// hour.
	OlderThan time.Duration
}

// orphanAge is how old an orphan is at least.
const orphanAge = time.Hour

// Repair is what was found and what was done about it.
type Repair struct {
	DryRun     bool        `json:"dry_run"`
	Operations []Operation `json:"operations"`
	Machines   []Finding   `json:"machines"`
	Orphans    []Orphan    `json:"orphans"`
}

// The states of an [Operation].
const (
	UnderWay    = "under way"   // its process answers
	Silent      = "silent"      // it does not, and is not gone for 30 s yet
	Interrupted = "interrupted" // it is gone
)

// Operation is a workflow that is in the journal.
type Operation struct {
	disk.Operation
	In       string   `json:"pool"`
	State    string   `json:"state"`
	Remedies []string `json:"remedies"` // what brings it to an end
	Outcome
}

// Outcome is what came of a remedy.
type Outcome struct {
	Done  bool   `json:"done"`            // something was changed
	Error string `json:"error,omitempty"` // why not
	Next  string `json:"next,omitempty"`  // what to type
}

// Changed says whether the repair changed anything.
func (r Repair) Changed() bool {
	return slices.ContainsFunc(r.Operations, func(o Operation) bool { return o.Done }) ||
		slices.ContainsFunc(r.Machines, func(f Finding) bool { return f.Done }) ||
		slices.ContainsFunc(r.Orphans, func(o Orphan) bool { return o.Done })
}

// left are the things that could not be repaired, for an error.
func (r Repair) left() (all []string) {
	for _, o := range r.Operations {
		if o.Error != "" {
			all = append(all, o.Kind+" "+o.Object+": "+o.Error)
		}
	}
	for _, f := range r.Machines {
		if f.Error != "" {
			all = append(all, "VM "+f.VM+": "+f.Error)
		}
	}
	for _, o := range r.Orphans {
		if o.Error != "" {
			all = append(all, o.Name+": "+o.Error)
		}
	}
	return all
}

// Repair brings everything to "it happened" or "it never happened": what processes
// left half done that are gone; machines that run twice, or are still where they
// were taken from; and, on request, what belongs to nothing. Run again, it changes
// nothing. What is not vmdisk's is told of and not touched. What takes another
// host's libvirt is left for a repair there. What could not be done is in the
// result, and the error names it.
//
// It waits for a process that does not answer only if the repair is of one machine.
func (h *Host) Repair(ctx context.Context, o RepairOptions) (Repair, error) {
	r := &repair{h: h, o: o, Repair: Repair{DryRun: o.DryRun, Operations: []Operation{}, Machines: []Finding{}, Orphans: []Orphan{}}}
	defer r.end()
	object := o.VM
	if object == "" {
		object = "all"
	}
	if err := r.run(ctx); err != nil {
		return r.Repair, failed("repair", object, err)
	}
	if left := r.left(); len(left) > 0 {
		return r.Repair, &Error{Op: "repair", Object: object, Err: errors.New("not all could be repaired"), Left: left}
	}
	return r.Repair, nil
}

// repair is the state of a repair.
type repair struct {
	session
	Repair
	h       *Host
	o       RepairOptions
	vm      disk.Machine            // the one that it is about, if it is about one
	records map[string]disk.Machine // by UUID
	leased  map[string]disk.Process // what is being worked on, as POOL/NAME
	here    []domain.Info           // this host's machines
}

func (r *repair) run(ctx context.Context) (err error) {
	if r.cluster, err = r.h.Cluster(ctx); err != nil {
		return err
	}
	// Without a libvirt, what is in Ceph can still be repaired.
	noHost := r.openHost(ctx, r.h)
	if err := r.look(ctx, noHost == nil); err != nil {
		return err
	}
	if err := r.operations(ctx); err != nil {
		return err
	}
	if slices.ContainsFunc(r.Operations, func(o Operation) bool { return o.Done }) { // machines may be elsewhere now
		if err := r.look(ctx, noHost == nil); err != nil {
			return err
		}
	}
	if noHost != nil {
		r.h.emit(Event{Kind: Warning, Op: "repair", Object: r.o.VM, Detail: "machines are not looked at: " + noHost.Error(), Err: noHost})
	} else if err := r.machines(ctx); err != nil {
		return err
	}
	if err := r.orphans(ctx); err != nil {
		return err
	}
	if r.o.VM != "" && r.vm.UUID == "" && len(r.Operations)+len(r.Orphans) == 0 {
		return &domain.Error{Object: "VM " + r.o.VM, Kind: domain.ErrNotFound, Reason: "is neither on this host nor in the records or the journal"}
	}
	return nil
}

// pools are those in whose journals vmdisk's work is. What is done in the pool of
// backups is in that of the volumes.
func (h *Host) pools() []string { return []string{disk.ImagePool, disk.VolumePool, h.cfg.VMPool} }

// journals are the pools whose journals are looked through: those, and others in which
// a machine of this host has a disk, for work on a volume is in its own pool's.
func (r *repair) journals() []string {
	all := r.h.pools()
	for _, info := range r.here {
		for _, d := range info.Disks {
			if d.Pool != "" && !slices.Contains(all, d.Pool) {
				all = append(all, d.Pool)
			}
		}
	}
	return all
}

// look reads what there is of machines.
func (r *repair) look(ctx context.Context, host bool) (err error) {
	if host {
		if r.here, err = listOwn(ctx, r.cluster, r.conn); err != nil {
			return err
		}
	}
	return r.readRecords(ctx)
}

// readRecords reads what is known of machines, and finds the one that it is about.
func (r *repair) readRecords(ctx context.Context) error {
	all, err := r.cluster.Machines(ctx, r.h.cfg.VMPool)
	if err != nil {
		return err
	}
	r.records = map[string]disk.Machine{}
	for _, m := range all {
		r.records[m.UUID] = m
		if r.o.VM == m.UUID || r.o.VM == m.Name && (r.vm.UUID == "" || m.Host == r.host) {
			r.vm = m
		}
	}
	for _, info := range r.here {
		if r.o.VM == info.Name || r.o.VM == info.UUID {
			r.vm.Name, r.vm.UUID = info.Name, info.UUID
		}
	}
	return nil
}

// about says whether an operation is one that the repair is about.
func (r *repair) about(o *disk.Operation) bool {
	if r.o.VM == "" {
		return true
	}
	return touches(o, r.vm.UUID) || slices.ContainsFunc(o.Leases, func(lease string) bool {
		_, name, _ := strings.Cut(lease, "/")
		return name == r.o.VM || name == r.vm.UUID && name != ""
	})
}

// touches says whether what is left of an operation changes a machine, whether or not
// it has its lease: a backup holds it still for a moment.
func touches(o *disk.Operation, vm string) bool {
	p, err := parsePlan(o)
	return err == nil && vm != "" && slices.ContainsFunc(remedies(p), func(a action) bool { return a.VM == vm })
}

// holdsStill says whether an operation may have left a guest frozen.
func holdsStill(o disk.Operation) bool {
	p, err := parsePlan(&o)
	return err == nil && slices.ContainsFunc(remedies(p), func(a action) bool {
		return a.Verb == actThaw || a.Verb == actResume || slices.Contains(settlesCrossing, a.Verb)
	})
}

// operations goes through the journals. What may have left a guest frozen comes
// first: it stands still until it is thawed.
func (r *repair) operations(ctx context.Context) error {
	var all, later []disk.Operation
	for _, pool := range r.journals() {
		found, err := r.cluster.Operations(ctx, pool)
		others := errors.Is(err, disk.ErrPermission) && !slices.Contains(r.h.pools(), pool)
		if err != nil && !others && !errors.Is(err, disk.ErrNotFound) { // there may be no such pool
			return err
		}
		for _, o := range found {
			if holdsStill(o) {
				all = append(all, o)
			} else {
				later = append(later, o)
			}
		}
	}
	all = append(all, later...)
	for i := range all {
		if !r.about(&all[i]) {
			r.lease(&all[i])
			continue
		}
		o, err := r.operation(ctx, &all[i])
		if err != nil {
			return err
		}
		if !o.Done {
			r.lease(&all[i])
		}
		r.Operations = append(r.Operations, o)
	}
	return nil
}

// lease notes what an operation works on: it is no orphan.
func (r *repair) lease(o *disk.Operation) {
	if r.leased == nil {
		r.leased = map[string]disk.Process{}
	}
	for _, name := range o.Leases {
		r.leased[name] = o.Holder
	}
}

// operation judges one operation, and repairs it.
func (r *repair) operation(ctx context.Context, found *disk.Operation) (Operation, error) {
	o := Operation{Operation: *found, In: found.Pool, Remedies: []string{}}
	p, err := parsePlan(found)
	if err != nil {
		o.State, o.Error = Interrupted, err.Error()
		return o, nil
	}
	for _, a := range remedies(p) {
		o.Remedies = append(o.Remedies, a.String())
	}
	alive, err := r.presence(ctx, found)
	if err != nil {
		return o, err
	}
	switch alive {
	case disk.Present:
		o.State = UnderWay
		return o, nil
	case disk.Silent:
		o.State, o.Next = Silent, "it answers or is gone within 30 s; then:  vmdisk repair"
		return o, nil
	}
	o.State = Interrupted
	if r.o.DryRun {
		return o, nil
	}
	err = r.h.repairOperation(ctx, &r.session, found, "")
	if err != nil && raced(err) {
		o.State = UnderWay
		return o, nil
	}
	o.note(err)
	return o, nil
}

// note writes an outcome down.
func (o *Outcome) note(err error) {
	o.Done = err == nil
	if err == nil {
		return
	}
	o.Error = err.Error()
	var e *Error
	if errors.As(err, &e) {
		o.Next = e.Next
	}
}

// presence says whether an operation is under way. Somebody who does not answer is
// waited for only if it is one machine that is repaired.
func (r *repair) presence(ctx context.Context, o *disk.Operation) (disk.Presence, error) {
	told := false
	for {
		alive, err := r.cluster.Alive(ctx, o)
		if err != nil || alive != disk.Silent || r.o.VM == "" || r.o.DryRun {
			return alive, err
		}
		if !told {
			told = true
			r.h.emit(Event{Kind: Note, Op: "repair", Object: o.Object, Detail: "waiting for " + o.String()})
		}
		if err := sleep(ctx, leasePoll); err != nil {
			return alive, err
		}
	}
}
