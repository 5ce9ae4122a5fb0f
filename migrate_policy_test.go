package vmdisk

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/lab"
	"github.com/vmdisk/vmdisk/migrate"
)

// hot is how much memory a guest writes again and again, at half as many bytes a second
// as can be sent: never converging, unless it is slowed down or stopped.
const (
	hot       = 40 << 20
	narrow    = 24 << 20 // bytes a second
	soonStuck = 4 * time.Second
)

// goes moves the machine and expects it where it says, whole.
func (m *traveller) goes(t *testing.T, p migrate.Policy, observe func(Event)) (Migration, error) {
	t.Helper()
	h := impatient(t, m.at, 0, observe)
	r, err := h.Migrate(t.Context(), m.UUID, testLab.Hosts[m.there()].URI, MigrateOptions{NoForecast: true, NoCheck: true, Policy: p})
	if err == nil {
		m.at = m.there()
	}
	m.isAt(t)
	return r, err
}

// isAt expects the machine where it is, running, and nowhere else.
func (m *traveller) isAt(t *testing.T) {
	t.Helper()
	here, err := domain.Inspect(t.Context(), connected(t, m.at), m.UUID)
	if err != nil || here.State != "running" {
		t.Errorf("on %s it is %+v, %v", testLab.Hosts[m.at].Name, here, err)
	}
	there, err := domain.Inspect(t.Context(), connected(t, m.there()), m.UUID)
	if !errors.Is(err, domain.ErrNotFound) {
		t.Errorf("on %s it is %+v, %v", testLab.Hosts[m.there()].Name, there, err)
	}
	m.whole(t)
}

// dirties has the guest write its memory as fast as it can; 0 ends that.
func (m *traveller) dirties(t *testing.T, region int64) {
	t.Helper()
	rate := int64(1 << 40)
	if region == 0 {
		rate = 0
	}
	must(t, testLab.Hosts[m.at].Dirty(waiting(t), m.Name, rate, region))
}

// A guest that writes faster than its memory is sent: each policy ends as it says.
func TestMigrationPolicies(t *testing.T) {
	travels(t, []journey{
		{"parallel", parallel},
		{"compressed", compressed},
		{"bandwidth", bandwidth},
		{"postcopy", postcopied},
		{"cancelled in post-copy", cancelledInPostcopy},
		{"encrypted", encrypted},
		{"stall, abort", stallAborts},
		{"stall, pause", stallPauses},
		{"stall, postcopy", stallGoesPostcopy},
		{"stall, auto-converge", stallConverges},
		{"deadline", deadlineAborts},
	})
}

func parallel(t *testing.T, m *traveller) {
	_, err := m.goes(t, migrate.Policy{Parallel: 2, Downtime: 400 * time.Millisecond}, nil)
	must(t, err)
}

func compressed(t *testing.T, m *traveller) {
	_, err := m.goes(t, migrate.Policy{Compress: true}, nil)
	must(t, err)
}

func bandwidth(t *testing.T, m *traveller) {
	r, err := m.goes(t, migrate.Policy{Bandwidth: narrow}, nil)
	must(t, err)
	if least := time.Duration(r.Transferred) * time.Second / narrow; r.Elapsed < least*9/10 {
		t.Errorf("%d bytes were sent in %v", r.Transferred, r.Elapsed)
	}
}

func postcopied(t *testing.T, m *traveller) {
	m.dirties(t, hot)
	phases := map[migrate.Phase]bool{}
	_, err := m.goes(t, migrate.Policy{Postcopy: true, Bandwidth: narrow}, func(e Event) {
		if e.Migration != nil {
			phases[e.Migration.Phase] = true
		}
	})
	must(t, err)
	if !phases[migrate.Copy] || !phases[migrate.Postcopy] {
		t.Errorf("phases were %v", phases)
	}
}

// Too late to be aborted, it is waited for.
func cancelledInPostcopy(t *testing.T, m *traveller) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	told := false
	h := impatient(t, m.at, 0, func(e Event) {
		if e.Migration != nil && e.Migration.Phase == migrate.Postcopy {
			cancel()
		}
		told = told || e.Kind == Note && strings.Contains(e.Detail, "cannot be aborted")
	})
	_, err := h.Migrate(ctx, m.UUID, testLab.Hosts[m.there()].URI, MigrateOptions{NoForecast: true, NoCheck: true,
		Policy: migrate.Policy{Postcopy: true, Bandwidth: narrow}})
	must(t, err)
	if !told || ctx.Err() == nil {
		t.Error("it was not said that it cannot be aborted")
	}
	m.at = m.there()
	m.isAt(t)
}

// With TLS nothing of a guest's memory is on the wire in the clear, be it copied before
// the switch to post-copy or after, and nothing of what libvirt says.
func encrypted(t *testing.T, m *traveller) {
	m.dirties(t, hot)
	for _, tt := range []struct {
		dest func(*lab.Host) string
		p    migrate.Policy
		in   bool // clear text
	}{
		{func(h *lab.Host) string { return h.URI }, migrate.Policy{Postcopy: true}, true},
		{func(h *lab.Host) string { return h.TLSURI }, migrate.Policy{Postcopy: true, TLS: true}, false},
	} {
		wire, err := testLab.Capture([]byte(lab.DirtyMarker))
		must(t, err)
		_, err = open(t, m.at).Migrate(t.Context(), m.UUID, tt.dest(testLab.Hosts[m.there()]),
			MigrateOptions{NoForecast: true, NoCheck: true, Policy: tt.p})
		seen, lost := wire.Stop()
		must(t, err)
		m.at = m.there()
		m.isAt(t)
		if lost != nil || seen.Bytes < hot || (seen.Found > 0) != tt.in {
			t.Errorf("%+v: %d marked pages in %d bytes on the wire, %v", tt.p, seen.Found, seen.Bytes, lost)
		}
	}
}

// stuck are the policies for a guest that does not converge.
func stuck(on migrate.Stall) migrate.Policy {
	return migrate.Policy{OnStall: on, Bandwidth: narrow, StallAfter: soonStuck, Downtime: 200 * time.Millisecond}
}

func stallAborts(t *testing.T, m *traveller) {
	m.dirties(t, hot)
	conn := connected(t, m.at)
	was, err := domain.MaxDowntime(t.Context(), conn, m.UUID)
	must(t, err)
	var steps []time.Duration
	p := stuck(migrate.StallAbort)
	p.FirstDowntime = 20 * time.Millisecond
	_, err = m.goes(t, p, func(e Event) {
		if e.Migration == nil || e.Migration.Phase != migrate.Copy {
			return
		}
		now, err := domain.MaxDowntime(t.Context(), conn, m.UUID)
		if err == nil && (len(steps) == 0 || steps[len(steps)-1] != now) {
			steps = append(steps, now)
		}
	})
	stalls(t, err, "--on-stall postcopy")
	if len(steps) < 2 || steps[0] != 20*time.Millisecond || steps[len(steps)-1] != 200*time.Millisecond {
		t.Errorf("the downtime went in steps %v", steps)
	}
	if now, err := domain.MaxDowntime(t.Context(), conn, m.UUID); err != nil || now != was {
		t.Errorf("the downtime is left at %v, which was %v: %v", now, was, err)
	}
}

func stalls(t *testing.T, err error, next string) {
	t.Helper()
	fails(t, err, migrate.ErrStalled)
	var stall *migrate.StallError
	var e *Error
	if !errors.As(err, &stall) || stall.Remaining == 0 || stall.Dirty == 0 || stall.Rate == 0 {
		t.Errorf("it does not say why: %v, %+v", err, stall)
	}
	if !errors.As(err, &e) || !strings.Contains(e.Next, next) {
		t.Errorf("what to do next is %+v", e)
	}
}

func stallPauses(t *testing.T, m *traveller) {
	stood := false
	_, err := m.goes(t, stuck(migrate.StallPause), func(e Event) {
		stood = stood || e.Migration != nil && e.Migration.Phase == migrate.Handover
	})
	must(t, err)
	if !stood {
		t.Error("it was not paused")
	}
}

func stallGoesPostcopy(t *testing.T, m *traveller) {
	m.dirties(t, hot)
	switched := false
	_, err := m.goes(t, stuck(migrate.StallPostcopy), func(e Event) {
		switched = switched || e.Migration != nil && e.Migration.Phase == migrate.Postcopy
	})
	must(t, err)
	if !switched {
		t.Error("it was not switched")
	}
}

// Slowed down, it converges; or not, but then it ends all the same.
func stallConverges(t *testing.T, m *traveller) {
	m.dirties(t, hot)
	p := stuck("")
	p.Bandwidth = 64 << 20 // few passes: QEMU's TCG may lose pages in each
	_, err := m.goes(t, p, nil)
	if err != nil {
		stalls(t, err, "--on-stall postcopy")
	}
	t.Logf("it ended with %v", err)
}

func deadlineAborts(t *testing.T, m *traveller) {
	m.dirties(t, hot)
	p := stuck(migrate.StallPause)
	p.StallAfter, p.Timeout = time.Minute, 12*time.Second // more than a pass
	_, err := m.goes(t, p, nil)
	stalls(t, err, "--downtime")
	m.dirties(t, 0)
}

// What cannot be is refused before anything is begun.
func TestMigrationPolicyRefused(t *testing.T) {
	h := open(t, 0)
	for _, p := range []migrate.Policy{
		{Parallel: 2, Postcopy: true},
		{Parallel: 2, OnStall: migrate.StallPostcopy},
		{Parallel: 2, Compress: true},
		{Parallel: 256},
		{Parallel: -1},
		{OnStall: "hope"},
		{Downtime: time.Hour},
		{Downtime: time.Microsecond},
		{Bandwidth: -1},
		{StallAfter: -1},
		{Timeout: -1},
	} {
		_, err := h.Migrate(t.Context(), "nothing", testLab.Hosts[1].URI, MigrateOptions{Policy: p})
		if !errors.Is(err, domain.ErrInvalid) {
			t.Errorf("%+v: %v", p, err)
		}
	}
}
