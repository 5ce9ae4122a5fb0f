// Migrations as others than their command see them: how far one is, and its end, if
// they want one.

package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/migrate"
	"libvirt.org/go/libvirt"
)

// route is where a migration goes, in the journal from its first moment.
type route struct {
	From    string `json:"from"`
	FromURI string `json:"from_uri,omitempty"`
	To      string `json:"to"`
	ToURI   string `json:"to_uri"`
}

func (m *move) route() *route {
	return &route{From: m.host, FromURI: m.from, To: m.result.To, ToURI: m.uri}
}

// MigrationStatus is how far the migration of a machine is, and what it does besides.
type MigrationStatus struct {
	VM       string
	UUID     string
	UnderWay bool
	// Host is where its guest is now, or, if it is off, its definition; State is what it
	// does there, as virsh domstate --reason says it.
	Host  string
	State string
	// From and To are the hosts' names; To is "" if libvirt moves it without vmdisk.
	From string
	To   string
	// Operation is that of the command; nil without one. Its State says whether its
	// process answers, and if not, nobody watches any more.
	Operation *Operation
	// Progress is nil before memory is being copied.
	Progress *migrate.Progress
}

// Phase is what it is at: one of [migrate.Progress], or what comes before and after
// memory is copied, or "offline", or "" if none is under way.
func (s MigrationStatus) Phase() string {
	switch {
	case !s.UnderWay:
		return ""
	case s.Progress != nil:
		return string(s.Progress.Phase)
	}
	switch s.Operation.Step {
	case "copy":
		return string(migrate.Setup)
	case "record":
		return "end"
	case "define", "undefine":
		return "offline"
	}
	return "preflight"
}

// Watched says whether a command is there that sees to the end of the migration.
func (s MigrationStatus) Watched() bool {
	return s.Operation != nil && s.Operation.State == UnderWay
}

// MigrationStatus says how far a machine's migration is that another process runs, on
// whichever host, or libvirt without one. It changes nothing. The machine is known by
// the journal, this host or its record; the source's libvirt is asked.
//
// Similar to: virsh domjobinfo.
func (h *Host) MigrationStatus(ctx context.Context, vm string) (MigrationStatus, error) {
	w := &watcher{h: h}
	defer w.close()
	if err := w.find(ctx, vm); err != nil {
		return MigrationStatus{}, failed("migrate", vm, err)
	}
	s, err := w.status(ctx)
	return s, failed("migrate", vm, err)
}

// watcher looks at a migration from outside.
type watcher struct {
	session // this host
	h       *Host
	name    string
	uuid    string
	route   route                       // as the journal has it
	source  *libvirt.Connect            // from which libvirt moves it
	asked   map[string]*libvirt.Connect // other hosts, by URI
}

func (w *watcher) close() {
	for _, conn := range w.asked {
		if !domain.Lost(conn) {
			_, _ = domain.Close(context.Background(), conn)
		}
	}
	w.end()
}

// find finds the machine: under way, here, or in its record.
func (w *watcher) find(ctx context.Context, vm string) error {
	if err := w.open(ctx, w.h); err != nil {
		return err
	}
	w.name, w.uuid = vm, vm
	if o, err := w.operation(ctx); err != nil || o != nil {
		return err
	}
	info, err := domain.Find(ctx, w.conn, vm)
	if err == nil {
		w.name, w.uuid = info.Name, info.UUID
		return nil
	}
	if !errors.Is(err, domain.ErrNotFound) {
		return err
	}
	m, recordErr := w.cluster.FindMachine(ctx, w.h.cfg.VMPool, vm)
	if recordErr != nil {
		return errors.Join(gone(recordErr), err)
	}
	w.name, w.uuid = m.Name, m.UUID
	return nil
}

// operation is the migration's, or nil. It says which machine it is, and where it goes.
func (w *watcher) operation(ctx context.Context) (*Operation, error) {
	pool := w.h.cfg.VMPool
	all, err := w.cluster.Operations(ctx, pool)
	if err != nil {
		return nil, err
	}
	for _, found := range all {
		if found.Kind != "migrate" || !slices.Contains(found.Leases, pool+"/"+w.uuid) && !slices.Contains(found.Leases, pool+"/"+w.name) {
			continue
		}
		alive, err := w.cluster.Alive(ctx, &found)
		if err != nil {
			return nil, err
		}
		o := &Operation{Operation: found, In: pool, Remedies: []string{}}
		o.State = map[disk.Presence]string{disk.Present: UnderWay, disk.Silent: Silent, disk.Gone: Interrupted}[alive]
		p, err := parsePlan(&found)
		if p.Route != nil {
			w.route = *p.Route
		}
		w.name, w.uuid = found.Object, p.VM
		return o, err
	}
	return nil, nil
}

// status asks where the machine is, and how far.
func (w *watcher) status(ctx context.Context) (MigrationStatus, error) {
	s := MigrationStatus{VM: w.name}
	o, err := w.operation(ctx)
	if err != nil {
		return s, err
	}
	at, uri := w.host, ""
	if o != nil {
		s.Operation, s.UnderWay = o, true
		at, uri, s.From, s.To = w.route.From, w.route.FromURI, w.route.From, w.route.To
	} else if m, err := w.cluster.Machine(ctx, w.h.cfg.VMPool, w.uuid); err == nil {
		at, uri = m.Host, m.URI
	} else if gone(err) != nil {
		return s, err
	}
	conn, err := w.reach(ctx, at, uri)
	if err != nil {
		return s, err
	}
	return w.ask(ctx, s, conn, at)
}

// ask asks the host where the machine is, or was; if it is not there any more, the one
// that it goes to.
func (w *watcher) ask(ctx context.Context, s MigrationStatus, conn *libvirt.Connect, at string) (MigrationStatus, error) {
	s.UUID = w.uuid
	here, err := domain.Glance(ctx, conn, w.uuid)
	if errors.Is(err, domain.ErrNotFound) {
		if s.To != "" && at != s.To {
			if conn, err = w.reach(ctx, s.To, w.route.ToURI); err != nil {
				return s, err
			}
			return w.ask(ctx, s, conn, s.To)
		}
		if at != w.host { // its record is out of date
			return w.ask(ctx, s, w.conn, w.host)
		}
	}
	if err != nil {
		return s, err
	}
	s.Host, s.State = at, here.State
	if s.To == at && at != "" || !here.Running {
		return s, nil
	}
	if s.Progress, err = migrate.Look(ctx, conn, w.uuid); err != nil {
		return s, err
	}
	if s.Progress != nil {
		s.UnderWay, s.From, w.source = true, at, conn
	}
	if here.Postcopy && s.To != "" {
		s.Host, s.State = s.To, "running (post-copy)"
	}
	return s, nil
}

// reach is a host's libvirt.
func (w *watcher) reach(ctx context.Context, host, uri string) (*libvirt.Connect, error) {
	if host == w.host {
		return w.conn, nil
	}
	uri, err := w.h.uriOf(disk.Machine{Host: host, URI: uri}, "")
	if err != nil {
		return nil, err
	}
	if conn := w.asked[uri]; conn != nil {
		return conn, nil
	}
	conn, err := domain.Connect(ctx, uri, w.h.cfg.Timeout)
	if err != nil {
		return nil, err
	}
	if w.asked == nil {
		w.asked = map[string]*libvirt.Connect{}
	}
	w.asked[uri] = conn
	return conn, nil
}

// abortEvery is how often an abort looks for whether it is over, and asks again.
const abortEvery = 100 * time.Millisecond

// stopsWithin is how long the migration's command is left to end it by itself.
const stopsWithin = 3 * time.Second

// AbortMigration has a machine's migration aborted, whoever runs it and however far it
// is, and blocks until it is over, which it must be within Config.Timeout or 30 s,
// whichever is longer; or else that is [domain.ErrTimeout]. Its command is told, and
// fails with [migrate.ErrAborted]; if none is there or does not do it, libvirt is told,
// and what it has left is settled as a repair does. The machine then runs where it was.
//
// If none is under way it is [migrate.ErrNone], in post-copy [migrate.ErrPostcopy]: a
// guest without all of its memory cannot go back. One that has moved in the meantime is
// an error, too. The status is valid with each, and says where the machine is.
//
// Similar to: virsh domjobabort.
func (h *Host) AbortMigration(ctx context.Context, vm string) (MigrationStatus, error) {
	const op = "abort migration of"
	w := &watcher{h: h}
	defer w.close()
	if err := w.find(ctx, vm); err != nil {
		return MigrationStatus{}, failed(op, vm, err)
	}
	s, err := w.abort(ctx)
	if err == nil {
		return s, nil
	}
	err = failed(op, vm, err)
	var e *Error
	if errors.As(err, &e) && s.Host != "" && e.State == "" {
		e.State = s.VM + " " + doing(s.State) + " on " + s.Host
	}
	return s, err
}

func (w *watcher) abort(ctx context.Context) (MigrationStatus, error) {
	first, err := w.status(ctx)
	switch {
	case err != nil:
		return first, err
	case !first.UnderWay:
		return first, migrate.ErrNone
	}
	ctx, cancel := context.WithTimeout(ctx, w.h.patience())
	defer cancel()
	for begin, s := time.Now(), first; ; {
		if s.Progress != nil && s.Progress.Phase == migrate.Postcopy {
			return s, fmt.Errorf("%w: its guest runs on the other host, and the rest of its memory is still on %s", migrate.ErrPostcopy, s.From)
		}
		if err := w.stop(ctx, s, time.Since(begin) > stopsWithin); err != nil {
			return s, err
		}
		if err := sleep(ctx, abortEvery); err != nil {
			if errors.Is(err, context.DeadlineExceeded) {
				err = &domain.Error{Op: "abort", Object: "migration of " + w.name, Kind: domain.ErrTimeout,
					Reason: fmt.Sprintf("it is not over within %v", w.h.patience().Round(time.Millisecond))}
			}
			return s, err
		}
		now, err := w.status(ctx)
		if errors.Is(err, domain.ErrNotFound) { // it went while we looked
			continue
		}
		if err != nil {
			return s, err
		}
		if s = now; !s.UnderWay {
			if first.From != "" && s.Host != first.From {
				return s, errors.New("it was too late")
			}
			return s, nil
		}
	}
}

// stop has whoever runs it stop it; by force, if they have had their time.
func (w *watcher) stop(ctx context.Context, s MigrationStatus, late bool) error {
	alive := disk.Gone
	if s.Operation != nil {
		var err error
		if alive, err = w.cluster.AskToStop(ctx, &s.Operation.Operation); err != nil {
			return err
		}
	}
	if alive == disk.Present && !late {
		return nil
	}
	if s.Progress != nil {
		_ = domain.AbortJob(ctx, w.source, w.uuid) // fails as long as there is nothing to abort
		return nil
	}
	if s.Operation != nil && alive == disk.Gone {
		_, err := w.h.repairLeft(ctx, &w.session, w.h.cfg.VMPool, w.uuid)
		return err
	}
	return nil
}
