// The journal: what a workflow is about to do is written down beside the disks
// before it begins, so that whoever finds it half done can take it back or finish
// it. What it works on is leased with the same write, so that nobody else does.
//
// All of a pool's is in the omap of one object. One write can then take several
// leases or none, a pool's open work is read in one call, and a thousand disks with
// nothing wrong cost nothing.

package disk

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/google/uuid"
)

const (
	journalObject = "vmdisk.journal"
	operationKey  = "op."    // followed by the operation's ID
	leaseKey      = "lease." // followed by what is leased
)

// ErrTaken is a journal entry that somebody else has changed: they took this
// process for dead. It must do nothing more.
var ErrTaken = fmt.Errorf("taken over by another process: %w", ErrInUse)

// Operation is a workflow that is under way, or was when its process died.
type Operation struct {
	ID     string `json:"id"`
	Pool   string `json:"-"`      // the pool in whose journal it is
	Kind   string `json:"kind"`   // the workflow: "boot"
	Object string `json:"object"` // what it is about: "web1"
	// Leases are what nobody else may work on meanwhile, as POOL/NAME.
	Leases []string `json:"leases"`
	// Step is the step that was begun last.
	Step string `json:"step,omitempty"`
	// Plan is the workflow's own: enough to take it back or to finish it.
	Plan    json.RawMessage `json:"plan,omitempty"`
	Holder  Process         `json:"holder"`
	Started time.Time       `json:"started"`
	// Abandoned is one whose process lives and has given up: anybody may go on.
	Abandoned bool `json:"abandoned,omitempty"`
	// Stop is called if another process asks this one to stop, see [Cluster.AskToStop],
	// any number of times; it must not block. Nil is not to be stopped.
	Stop func(by Process) `json:"-"`

	stored []byte
}

// HeldError says which operation has a lease.
type HeldError struct{ Operation Operation }

// Error is its description.
func (e *HeldError) Error() string { return e.Operation.String() }

func (o *Operation) String() string {
	return fmt.Sprintf("%s %s by %s, since %s", o.Kind, o.Object, o.Holder,
		o.Started.Local().Format("2006-01-02 15:04:05"))
}

// ref is what a lease says: which operation has it.
func (o *Operation) ref() []byte { return []byte(o.Pool + "/" + o.ID) }

// leases are the keys of an operation's leases, by pool.
func (o *Operation) leases() map[string][]string {
	byPool := map[string][]string{o.Pool: nil}
	for _, lease := range o.Leases {
		pool, name, _ := strings.Cut(lease, "/")
		byPool[pool] = append(byPool[pool], leaseKey+name)
	}
	return byPool
}

// Begin writes an operation into the journal of its pool and takes its leases, at
// once; leases in other pools follow. If one is held it is [ErrInUse], names the
// holder, and nothing is held. It sets ID, Holder and Started.
func (c *Cluster) Begin(ctx context.Context, o *Operation) (err error) {
	if o.Holder, err = c.self(); err != nil {
		return err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	o.ID, o.Started = id.String(), time.Now().UTC()
	for pool := range o.leases() {
		if err := c.show(pool); err != nil {
			return c.explainCaps(pool, err)
		}
	}
	if o.stored, err = json.Marshal(o); err != nil {
		return err
	}
	c.remember(o) // before anybody can see that it is ours
	if err := c.lease(ctx, o, o.Pool, map[string][]byte{operationKey + o.ID: o.stored}); err != nil {
		c.forget(o)
		return err
	}
	for _, pool := range slices.Sorted(maps.Keys(o.leases())) {
		if pool == o.Pool {
			continue
		}
		if err := c.lease(ctx, o, pool, nil); err != nil {
			if e := c.End(context.WithoutCancel(ctx), o); e != nil {
				return fmt.Errorf("%w (and its journal entry %s stays: %w)", err, o.ID, e)
			}
			return err
		}
	}
	return nil
}

// lease takes an operation's leases in one pool, and writes what goes with them.
func (c *Cluster) lease(ctx context.Context, o *Operation, pool string, with map[string][]byte) error {
	change := omapChange{expect: map[string][]byte{}, set: map[string][]byte{}}
	maps.Copy(change.set, with)
	for key := range with {
		change.expect[key] = nil
	}
	for _, key := range o.leases()[pool] {
		change.expect[key] = nil
		change.set[key] = o.ref()
	}
	return c.change(ctx, pool, o, change, func(has map[string][]byte) error {
		for _, key := range o.leases()[pool] {
			if by := has[key]; by != nil && !bytes.Equal(by, o.ref()) {
				return c.held(ctx, pool, strings.TrimPrefix(key, leaseKey), string(by))
			}
		}
		return nil
	})
}

// held is the error for a lease that somebody has.
func (c *Cluster) held(ctx context.Context, pool, name, ref string) error {
	e := &Error{Op: "lock", Object: pool + "/" + name, Kind: ErrInUse}
	by, id, _ := strings.Cut(ref, "/")
	if o, err := c.Operation(ctx, by, id); err == nil {
		e.Holders, e.Err = []string{o.String()}, &HeldError{o}
	} else {
		e.Holders = []string{"operation " + ref}
	}
	return e
}

// Advance writes down which step is begun, and the plan. It is [ErrTaken] if
// somebody took the operation over.
func (c *Cluster) Advance(ctx context.Context, o *Operation) error {
	now, err := json.Marshal(o)
	if err != nil {
		return err
	}
	key := operationKey + o.ID
	err = c.change(ctx, o.Pool, o, omapChange{
		expect: map[string][]byte{key: o.stored},
		set:    map[string][]byte{key: now},
	}, func(has map[string][]byte) error {
		if !bytes.Equal(has[key], now) {
			return o.taken()
		}
		return nil
	})
	if err == nil {
		o.stored = now
	}
	return err
}

func (o *Operation) taken() error {
	return &Error{Op: "continue", Object: o.Kind + " " + o.Object, Kind: ErrInUse, Err: ErrTaken,
		Reason: "another process took this one for dead and took it over"}
}

// End takes an operation out of the journal and gives its leases back, those in
// other pools first. One that is not there any more is fine; it is [ErrTaken] if
// somebody took it over.
func (c *Cluster) End(ctx context.Context, o *Operation) error {
	defer c.forget(o) // not sooner: whoever asked would take it for given up
	byPool := o.leases()
	for pool, keys := range byPool {
		if pool == o.Pool {
			continue
		}
		for _, key := range keys { // each by itself: not all may be ours
			change := omapChange{expect: map[string][]byte{key: o.ref()}, remove: []string{key}}
			err := c.change(ctx, pool, o, change, func(map[string][]byte) error { return nil })
			if err != nil {
				return err
			}
		}
	}
	key := operationKey + o.ID
	return c.change(ctx, o.Pool, o, omapChange{
		expect: map[string][]byte{key: o.stored},
		remove: append(byPool[o.Pool], key),
	}, func(has map[string][]byte) error {
		if has[key] != nil {
			return o.taken()
		}
		return nil
	})
}

// change applies a change to a pool's journal. If what is there is not what the
// change expects, judge says what to make of it; nil is that nothing need be done.
// Of a change that timed out the outcome is unknown.
func (c *Cluster) change(ctx context.Context, pool string, o *Operation, change omapChange, judge func(has map[string][]byte) error) error {
	return c.pool(ctx, pool, func(io *rados.IOContext) error {
		for {
			ok, err := change.apply(io, journalObject)
			if ok {
				return nil
			}
			if err != nil {
				return wrap("write journal of", "pool "+pool+" for "+o.Kind+" "+o.Object, err)
			}
			has, err := readJournal(io, pool, "")
			if err == nil {
				err = ctx.Err()
			}
			switch {
			case err != nil:
				return err
			case change.done(has):
				return nil
			case !change.fits(has):
				return judge(has)
			}
		}
	})
}

// Operations are a pool's operations, those under way and those that a process
// left when it died, oldest first.
func (c *Cluster) Operations(ctx context.Context, pool string) ([]Operation, error) {
	all := []Operation{}
	err := c.pool(ctx, pool, func(io *rados.IOContext) error {
		has, err := readJournal(io, pool, operationKey)
		if err != nil {
			return err
		}
		for key, value := range has {
			o := Operation{Pool: pool, stored: value}
			if err := json.Unmarshal(value, &o); err != nil {
				return wrap("read journal of", "pool "+pool+", "+key, err)
			}
			all = append(all, o)
		}
		return nil
	})
	slices.SortFunc(all, func(a, b Operation) int { return strings.Compare(a.ID, b.ID) }) // by time
	return all, err
}

// Operation is one operation; [ErrNotFound] if it is over.
func (c *Cluster) Operation(ctx context.Context, pool, id string) (Operation, error) {
	all, err := c.Operations(ctx, pool)
	if err != nil {
		return Operation{}, err
	}
	for _, o := range all {
		if o.ID == id {
			return o, nil
		}
	}
	return Operation{}, &Error{Op: "find", Object: "operation " + id, Kind: ErrNotFound}
}

// readJournal reads the entries whose keys begin with prefix.
func readJournal(io *rados.IOContext, pool, prefix string) (map[string][]byte, error) {
	has, err := io.GetAllOmapValues(journalObject, "", prefix, 1000)
	if err != nil && !is(err, ErrNotFound) {
		return nil, wrap("read journal of", "pool "+pool, err)
	}
	return has, nil
}

// Abandon leaves an operation in the journal for anybody to go on with.
func (c *Cluster) Abandon(ctx context.Context, o *Operation) error {
	c.GiveUp(o)
	o.Abandoned = true
	return c.Advance(ctx, o)
}

// GiveUp leaves an operation in the journal for anybody to go on with, as [Cluster.Abandon]
// does, and writes nothing: it is for when the cluster does not answer. Who asks
// later is told by this process, or finds it dead.
func (c *Cluster) GiveUp(o *Operation) { c.forget(o) }

// remember and forget know which operations this process works on: one that it
// holds and does not work on is abandoned, whether or not it could write that.
func (c *Cluster) remember(o *Operation) {
	c.workMu.Lock()
	defer c.workMu.Unlock()
	if c.work == nil {
		c.work = map[string]func(Process){}
	}
	c.work[o.ID] = o.Stop
}

func (c *Cluster) forget(o *Operation) {
	c.workMu.Lock()
	defer c.workMu.Unlock()
	delete(c.work, o.ID)
}

func (c *Cluster) worksOn() []string {
	c.workMu.Lock()
	defer c.workMu.Unlock()
	return slices.Collect(maps.Keys(c.work))
}

// Alive says whether an operation's process still works on it: [Gone] if it is
// proven dead, is not known to the cluster any more, or has given up.
func (c *Cluster) Alive(ctx context.Context, o *Operation) (Presence, error) {
	alive, _, err := c.alive(ctx, o)
	return alive, err
}

// alive says so too, and of one that is [Gone] whether its process may only sleep.
func (c *Cluster) alive(ctx context.Context, o *Operation) (alive Presence, asleep bool, err error) {
	if o.Abandoned || o.Holder.Dead() {
		return Gone, false, nil
	}
	holder := member{Present, c.worksOn()}
	if o.Holder.Client != c.conn.GetInstanceID() {
		all, err := c.members(ctx, o.Pool)
		if err != nil {
			return Gone, false, err
		}
		holder = all[o.Holder.Client]
	}
	if holder.presence == Present && !slices.Contains(holder.work, o.ID) {
		return Gone, false, nil
	}
	return holder.presence, holder.presence == Gone, nil
}

// TakeOver makes an operation this process's own, if it is [Gone]; if its process
// may only sleep, it is kept from the cluster first. One that somebody works on,
// or took over just now, is [ErrInUse].
func (c *Cluster) TakeOver(ctx context.Context, o *Operation) error {
	alive, asleep, err := c.alive(ctx, o)
	if err != nil {
		return err
	}
	if alive != Gone {
		return &Error{Op: "take over", Object: o.Kind + " " + o.Object, Kind: ErrInUse, Err: &HeldError{*o}, Holders: []string{o.String()}}
	}
	if asleep {
		for _, addr := range append([]string{o.Holder.Addr}, o.Holder.Also...) {
			if err := c.Fence(ctx, addr, FenceTime); err != nil {
				return err
			}
		}
	}
	if err := c.show(o.Pool); err != nil {
		return err
	}
	mine := *o
	if mine.Holder, err = c.self(); err != nil {
		return err
	}
	mine.Abandoned = false
	c.remember(o) // before anybody can see that it is ours
	if err := c.Advance(ctx, &mine); err != nil {
		c.forget(o)
		return err
	}
	*o = mine
	return nil
}
