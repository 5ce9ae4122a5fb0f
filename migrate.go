// Migrate: a running machine to another host.

package vmdisk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/migrate"
	"github.com/vmdisk/vmdisk/secret"
	"golang.org/x/sync/errgroup"
	"libvirt.org/go/libvirt"
)

// MigrateOptions say how a machine is moved.
type MigrateOptions struct {
	NoCheck    bool // skip the preflight
	NoForecast bool // do not measure the guest for a second and say what is to come
	Offline    bool // it is off, and only its definition moves
	Fix        bool // have the preflight cure what it can
	migrate.Policy
}

// Migration is a machine that moved.
type Migration struct {
	VM   string
	From string // host names
	To   string
	// Forecast is what was expected; nil if it was not asked for, or not possible.
	Forecast *migrate.Forecast
	// HandedOver is that the source's clients were seen to have let go of all disks: only
	// the destination's can write.
	HandedOver bool
	Offline    bool // it is off, and only its definition has moved
	migrate.Result
}

// move is the state that the steps share.
type move struct {
	session // the source
	h       *Host
	o       MigrateOptions
	watch   *libvirt.Connect // the source again, for asking while it works
	to      *libvirt.Connect
	uri     string // the destination's
	from    string // how others reach the source's libvirt, or ""
	vm      domain.Info
	secret  secret.Secret
	preflight
	sight  *sighting // nil if there is to be no forecast
	moved  bool
	before uses                                   // who had its disks open before
	still  []string                               // who of those has them still
	adapt  func(xml string) (string, bool, error) // its definition, for the destination
	stop   func(by disk.Process)
	result Migration
}

// Migrate moves a running machine to dest, a libvirt URI, or a host name that
// gets the scheme and path of [Config.URI]. The URI must be good for the source
// host too, which talks to the destination directly.
//
// The destination gets the libvirt secret first, then the preflight asks whether
// it can run the machine, see [migrate.Preflight]. If ctx ends during the move, or
// nothing moves any more for Config.Timeout or 30 s, whichever is longer, it is aborted
// and the machine runs on the source; the latter is [migrate.ErrStalled]. So it is if the
// guest writes faster than its memory can be copied and what o.OnStall says does not help.
// In post-copy nothing can be aborted any more. A policy that cannot be is
// [domain.ErrInvalid], before anything is begun.
//
// Whatever fails, the machine runs where it was, unless the error is [migrate.ErrUnknown],
// which a repair settles; [migrate.ErrInterrupted], with which
// [Host.RecoverMigration] goes on; or [migrate.ErrLost]: then it was started again from
// its disk, if its guest had not powered off. A destination from which the machine was once taken is [disk.ErrInUse]
// until a repair there.
//
// With o.Offline it is a machine that is off, whose definition moves in its place; its
// record is the destination's from the moment on that it is not taken back any more.
// Another process may abort it, see [Host.AbortMigration]: that is [migrate.ErrAborted].
// The error says where the machine is, see [Error].State.
//
// Similar to: virsh migrate --live --p2p --persistent --undefinesource.
func (h *Host) Migrate(ctx context.Context, vm, dest string, o MigrateOptions) (Migration, error) {
	m := &move{h: h, o: o}
	err := m.run(ctx, vm, dest)
	if errors.Is(err, migrate.ErrLost) && !errors.Is(err, migrate.ErrEnded) {
		err = h.startLost(context.WithoutCancel(ctx), m.vm, err)
	}
	if !m.moved {
		return Migration{}, err
	}
	return m.result, err
}

// run moves it; of an error it says where the machine is.
func (m *move) run(ctx context.Context, vm, dest string) error {
	defer m.close()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	m.stop = func(by disk.Process) { stop(&abortedError{by}) }
	return m.explain(ctx, m.travel(ctx, vm, dest))
}

func (m *move) travel(ctx context.Context, vm, dest string) error {
	const op = "migrate"
	if err := m.o.Check(); err != nil {
		return failed(op, vm, err)
	}
	if err := m.prepare(ctx, vm, dest); err != nil {
		return failed(op, vm, err)
	}
	t := m.h.onMachine(&m.session, op, m.vm)
	t.check, t.stop, t.route = m.find, m.stop, m.route()
	t.steps = func() []step {
		if m.o.Offline {
			return m.offline()
		}
		steps := []step{m.giveSecret()}
		if !m.o.NoCheck {
			steps = append(steps, m.checkStep())
		}
		if m.sight != nil {
			steps = append(steps, step{name: "forecast", detail: m.outlook, do: m.forecast})
		}
		settle := []action{m.settle(len(steps[0].back) > 0)}
		return append(steps,
			step{name: "copy", detail: func() string { return m.result.To }, do: m.copy, commit: true, on: settle},
			step{name: "record", detail: m.handedOver, do: m.record, on: settle})
	}
	return m.h.perform(ctx, t)
}

// startLost starts a machine whose memory a migration has lost. The error remains.
func (h *Host) startLost(ctx context.Context, vm domain.Info, lost error) error {
	var e *Error
	if !errors.As(lost, &e) {
		return lost
	}
	if _, err := h.Start(ctx, vm.UUID); err != nil {
		e.Err = fmt.Errorf("%w; and it does not start again: %w", e.Err, err)
		e.Next = "vmdisk start " + vm.Name
		return e
	}
	e.Err = fmt.Errorf("%w; it was started again from its disk", e.Err)
	e.Next = ""
	return e
}

// prepare opens the connections, side by side, and finds the machine.
func (m *move) prepare(ctx context.Context, vm, dest string) (err error) {
	if m.uri, err = domain.RemoteURI(m.h.cfg.URI, dest); err != nil {
		return err
	}
	var ceph, far errgroup.Group
	ceph.Go(func() error {
		_, err := m.h.Cluster(ctx)
		return err
	})
	far.Go(func() (err error) {
		if m.to, err = domain.Connect(ctx, m.uri, m.h.cfg.Timeout); err == nil {
			m.there, err = domain.DescribeNode(ctx, m.to)
		}
		return err
	})
	nearErr := m.source(ctx, vm)
	cephErr, farErr := ceph.Wait(), far.Wait()
	if err := cmp.Or(cephErr, nearErr); err != nil {
		return err
	}
	if m.vm, err = m.session.find(ctx, m.h, vm); err != nil {
		return err
	}
	m.o.Policy = m.o.For(m.vm.Emulated)
	if farErr != nil {
		return farErr
	}
	if err := m.meet(); err != nil {
		return err
	}
	return m.find(ctx)
}

// source opens the connections to where the machine is, and begins to measure it.
func (m *move) source(ctx context.Context, vm string) (err error) {
	if err = m.openHost(ctx, m.h); err != nil {
		return err
	}
	if m.from, err = domain.RemoteAddress(m.conn); err != nil {
		return err
	}
	if m.watch, err = domain.Another(ctx, m.conn, m.h.patience()); err != nil {
		return err
	}
	if !m.o.NoForecast && !m.o.Offline {
		m.sight = m.look(ctx, vm)
	}
	m.here, err = domain.DescribeNode(ctx, m.conn)
	return err
}

// find refuses a machine that does not run, and a destination that may still have
// what was left of it there.
func (m *move) find(ctx context.Context) (err error) {
	m.vm, err = findOwn(ctx, m.cluster, m.conn, m.vm.UUID)
	if err == nil {
		err = m.suits()
	}
	if err != nil {
		return err
	}
	was, err := m.cluster.Machine(ctx, m.h.cfg.VMPool, m.vm.UUID)
	if err == nil && was.LeftBehind(m.result.To) != nil {
		err = &disk.Error{Object: "VM " + m.vm.Name, Kind: disk.ErrInUse, Err: &behindError{m.vm.Name, m.result.To},
			Reason: "was taken from " + m.result.To + " while that did not answer, and what was left of it there is not cleared away"}
	}
	if gone(err) != nil {
		return err
	}
	return m.h.movable(ctx, m.cluster, m.vm.Name, imagesNow(m.vm))
}

// imagesNow are the images that a machine has in Ceph.
func imagesNow(info domain.Info) (all []disk.Name) {
	for _, d := range info.Disks {
		if d.Pool != "" {
			all = append(all, disk.Name{Pool: d.Pool, Image: d.Image})
		}
	}
	return all
}

// behindError is a destination that must be cleared first.
type behindError struct{ vm, host string }

func (b *behindError) Error() string { return b.vm + " was left behind on " + b.host }

// dest is the destination's session.
func (m *move) dest() *session {
	return &session{cluster: m.cluster, conn: m.to, host: m.result.To}
}

// settle is what is done about a migration whose client died. If it gave the
// destination a secret, that goes if the machine has not come.
func (m *move) settle(gave bool) action {
	a := action{Verb: actSettle, VM: m.vm.UUID, Name: m.vm.Name,
		Host: m.host, URI: m.from, To: m.result.To, ToURI: m.uri, TLS: m.o.TLS}
	if gave {
		a.Secret = m.h.secretUUID(m.cluster)
	}
	return a
}

// close ends the connections, that to the destination when the probe is gone.
func (m *move) close() {
	ctx := context.Background()
	m.sight.end(m.watch)
	if m.to != nil {
		if _, err := domain.Hostname(ctx, m.to); err == nil { // else it does not end the probe either
			_ = m.report.Wait() // should the probe be left, AUTODESTROY ends it now
		}
	}
	for _, conn := range []*libvirt.Connect{m.to, m.watch} {
		if conn == nil || domain.Lost(conn) {
			continue
		}
		if left, err := domain.Close(ctx, conn); err == nil && left > 0 {
			m.h.emit(Event{Kind: Warning, Op: "migrate", Object: m.vm.Name, Detail: errLeaked.Error(), Err: errLeaked})
		}
	}
	m.end()
}

// meet refuses a destination that is the source, with or without a preflight, before it
// gets a secret.
func (m *move) meet() error {
	if m.here.UUID == m.there.UUID {
		return fmt.Errorf("%s is on %s already: %w", m.vm.Name, m.there.Hostname, migrate.ErrSameHost)
	}
	m.result = Migration{VM: m.vm.Name, From: m.here.Hostname, To: m.there.Hostname, Offline: m.o.Offline}
	return nil
}

// lookTime is how long Ceph may take to say who has the disks open before a move.
const lookTime = time.Second

func (m *move) copy(ctx context.Context) error {
	users := make(chan uses, 1)
	go func() {
		if before, err := m.users(ctx); err == nil {
			users <- before
		}
	}()
	late := time.After(lookTime)
	rewrite, err := m.rewrite(ctx)
	m.adapt = rewrite
	if err != nil {
		return err
	}
	select {
	case m.before = <-users:
	case <-late: // then that they are handed over is not known
	}
	top := int64(0)
	again := m.again()
	m.result.Result, err = migrate.Run(ctx, migrate.Move{
		VM: m.vm.Name, Source: m.conn, Watch: m.watch, Dest: m.to, DestURI: m.uri,
		Patience: m.h.patience(), Policy: m.o.Policy,
		Rewrite: rewrite,
		Report: func(p migrate.Progress) {
			again(p)
			top = max(top, p.Total-p.Remaining) // of what was there once: more to go is no step back
			m.h.emit(Event{Kind: Progress, Op: "migrate", Object: m.vm.Name, Step: "copy",
				Detail: "dirty " + disk.FormatSize(p.Dirty) + "/s",
				Bytes:  top, Total: p.Total, Rate: p.Rate, Elapsed: p.Elapsed, Migration: &p})
		},
		Notice: func(text string) {
			m.h.emit(Event{Kind: Note, Op: "migrate", Object: m.vm.Name, Step: "copy", Detail: text})
		},
	})
	m.moved = err == nil || errors.Is(err, migrate.ErrUnknown) || errors.Is(err, migrate.ErrInterrupted)
	return err
}

// moved writes down that a machine has come to on's host.
func (h *Host) moved(ctx context.Context, on *session, vm string) error {
	was, err := on.cluster.Machine(ctx, h.cfg.VMPool, vm)
	if gone(err) != nil {
		return err
	}
	if err := h.recordHere(ctx, on, vm, was); err != nil {
		return err
	}
	all, err := disksOf(ctx, on.cluster, on.conn, vm)
	for _, has := range all {
		if has.Pool == "" || disk.Owned(vm, has.Image) {
			continue
		}
		n := disk.Name{Pool: has.Pool, Image: has.Image}
		err = errors.Join(err, on.cluster.Moved(ctx, n, vm, on.host))
	}
	return err
}
