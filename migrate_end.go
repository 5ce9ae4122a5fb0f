// The end of a migration: whether all of the machine has come, and nothing of it is
// left; and where it is, if the migration has failed.

package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/migrate"
	"golang.org/x/sync/errgroup"
	"libvirt.org/go/libvirt"
)

// handoverTime is how long the source's clients are waited for to let go of the disks.
// Their QEMU has ended; the watch of one that did not do so cleanly lasts 30 s longer.
const handoverTime = 5 * time.Second

// abortedError is that another process has aborted this one's migration.
type abortedError struct{ by disk.Process }

func (a *abortedError) Error() string {
	return fmt.Sprintf("aborted by another command, pid %d on %s", a.by.PID, a.by.Host)
}

func (a *abortedError) Is(target error) bool { return target == migrate.ErrAborted }

// explain says of an error who wanted it so, and where the machine is.
func (m *move) explain(ctx context.Context, err error) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	var aborted *abortedError
	var held *disk.HeldError
	switch {
	case errors.Is(err, migrate.ErrUnknown), errors.Is(err, migrate.ErrInterrupted), errors.Is(err, migrate.ErrLost), errors.Is(err, disk.ErrTaken):
		return err // which say so themselves, or it is another's to say
	case errors.As(err, &held):
		return err
	case errors.As(context.Cause(ctx), &aborted) && errors.Is(err, context.Canceled):
		e.Err = aborted
	case errors.Is(err, libvirt.ERR_OPERATION_ABORTED) && !errors.Is(err, migrate.ErrStalled):
		e.Err = fmt.Errorf("%w by another command: %w", migrate.ErrAborted, e.Err)
	}
	e.State = m.whereabouts(context.WithoutCancel(ctx))
	return err
}

// whereabouts is where the machine is after a failure, as its host says it, or "" if it
// has not even been found.
func (m *move) whereabouts(ctx context.Context) string {
	if m.vm.UUID == "" || m.conn == nil || domain.Lost(m.conn) {
		return ""
	}
	c, err := domain.Glance(ctx, m.conn, m.vm.UUID)
	switch {
	case err == nil:
		return m.vm.Name + " " + doing(c.State) + " on " + m.host + " as before"
	case m.to == nil || domain.Lost(m.to) || !errors.Is(err, domain.ErrNotFound):
		return ""
	}
	if c, err = domain.Glance(ctx, m.to, m.vm.UUID); err != nil {
		return ""
	}
	return m.vm.Name + " " + doing(c.State) + " on " + m.result.To
}

// doing is a state in a sentence.
func doing(state string) string {
	if state == "running" {
		return "runs"
	}
	return "is " + state
}

// record makes sure that all has come, and writes down where the machine is now, and
// on its volumes; and what the way there is like, which is not worth a failure: the next
// forecast does without.
func (m *move) record(ctx context.Context) error {
	var beside errgroup.Group
	beside.Go(func() error { return m.remember(ctx) })
	m.confirm(ctx)
	err := m.leaveNothing(ctx)
	if err == nil {
		err = m.h.moved(ctx, m.dest(), m.vm.UUID)
	}
	_ = beside.Wait()
	return err
}

// leaveNothing makes the source forget the machine and the destination keep it, should
// libvirt have failed to, which it then only writes into its log.
func (m *move) leaveNothing(ctx context.Context) error {
	here, err := domain.Glance(ctx, m.watch, m.vm.UUID)
	switch {
	case errors.Is(err, domain.ErrNotFound):
	case err != nil:
		return err
	case here.Running:
		m.warn(fmt.Errorf("%s is still %s on %s", m.vm.Name, here.State, m.host), "vmdisk why "+m.vm.Name)
	default:
		if err := domain.Undefine(ctx, m.watch, m.vm.UUID); err != nil {
			return err
		}
	}
	kept, err := domain.Persistent(ctx, m.to, m.vm.UUID)
	if err != nil {
		return err
	}
	return domain.Redefine(ctx, m.to, m.vm.UUID, func(xml string) (string, bool, error) {
		xml, changed, err := m.adapt(xml)
		return xml, changed || !kept, err
	})
}

func (m *move) warn(err error, next string) {
	m.h.emit(Event{Kind: Warning, Op: "migrate", Object: m.vm.Name, Detail: err.Error() + "; see:  " + next, Err: err})
}

// uses are who has a machine's disks open, and their locks.
type uses map[disk.Name]disk.Use

// users asks who has the machine's disks open.
func (m *move) users(ctx context.Context) (uses, error) {
	var mu sync.Mutex
	var all sync.WaitGroup
	found, failures := uses{}, error(nil)
	for _, d := range m.vm.Disks {
		n := disk.Name{Pool: d.Pool, Image: d.Image}
		if d.Pool == "" {
			continue
		}
		all.Go(func() {
			use, err := m.h.useNow(ctx, m.cluster, n)
			mu.Lock()
			defer mu.Unlock()
			found[n], failures = use, errors.Join(failures, gone(err))
		})
	}
	all.Wait()
	return found, failures
}

// confirm waits until the source's clients have let go of the disks, which hands their
// locks over: then nobody but the destination's can write. That no client has a lock is
// fine, it is taken at the next write. That it is not so is told, and no error: the
// machine has moved.
func (m *move) confirm(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, handoverTime)
	defer cancel()
	for {
		now, err := m.users(ctx)
		if err == nil {
			m.still = m.before.in(now)
		}
		switch {
		case err == nil && len(m.still) == 0:
			m.result.HandedOver = m.before != nil
			return
		case err == nil:
			err = sleep(ctx, 20*time.Millisecond)
		}
		if err == nil {
			continue
		}
		if len(m.still) > 0 {
			err = fmt.Errorf("who had it open before the migration has not let go of %s", strings.Join(m.still, ", "))
		} else {
			err = fmt.Errorf("it is not known whether the source has let go of the disks: %w", err)
		}
		m.warn(err, "vmdisk why "+m.vm.Name)
		return
	}
}

// in are those who had an image open before and have it still, or its lock, for people.
// If one of them had the lock, that was the source; another is dead, as the destination
// of a migration that was aborted, and is watching for 30 s longer.
func (before uses) in(now uses) (all []string) {
	for n, use := range now {
		had := before[n].Addrs()
		if lock := before[n].Lock; lock != "" {
			had = []string{lock}
		}
		for _, addr := range use.Addrs() {
			if slices.Contains(had, addr) {
				all = append(all, fmt.Sprintf("%s (%s)", n, addr))
			}
		}
	}
	slices.Sort(all)
	return all
}

// handedOver is what came of the machine's disks.
func (m *move) handedOver() string {
	if !m.result.HandedOver {
		return m.vm.Name
	}
	return fmt.Sprintf("%s on %s, %s handed over", m.vm.Name, m.result.To, count(len(m.before), "disk"))
}
