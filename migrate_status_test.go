// Migrations seen and aborted from outside, in whichever phase they are, and whether or
// not their command still lives.

package vmdisk

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/migrate"
)

func TestMigrationStatus(t *testing.T) {
	forgetsSoon(t)
	travels(t, []journey{
		{"none", noMigration},
		{"in the preflight", abortedInPreflight},
		{"while copying", abortedWhileCopying},
		{"without vmdisk", abortedWithoutVmdisk},
		{"its client killed", abortedWithoutClient},
		{"aborted by virsh", abortedByVirsh},
		{"handed over", locksHandedOver},
	})
}

// seen waits until the migration is in a phase, as the other host is told it.
func (m *traveller) seen(t *testing.T, phase string) MigrationStatus {
	t.Helper()
	h := open(t, m.there())
	for ctx := waiting(t); ; {
		s, err := h.MigrationStatus(ctx, m.Name)
		must(t, err)
		if s.Phase() == phase {
			return s
		}
		if sleep(ctx, 50*time.Millisecond) != nil {
			t.Fatalf("it is %+v", s)
		}
	}
}

// aborted has the migration aborted from the other host, and expects the machine where
// it was and nothing left.
func (m *traveller) aborted(t *testing.T) {
	t.Helper()
	s, err := open(t, m.there()).AbortMigration(t.Context(), m.UUID)
	if err != nil || s.UnderWay || s.Host != testLab.Hosts[m.at].Name || s.State != "running" {
		t.Fatalf("aborted: %+v, %v", s, err)
	}
	if leftInJournal(t, open(t, m.at)) {
		t.Error("it is in the journal")
	}
}

// stays expects how an aborted migration has ended for its command.
func (m *traveller) stays(t *testing.T, err error) {
	t.Helper()
	fails(t, err, migrate.ErrAborted)
	var e *Error
	if !errors.As(err, &e) || e.State != m.Name+" runs on "+testLab.Hosts[m.at].Name+" as before" ||
		!strings.Contains(err.Error(), "by another command") {
		t.Errorf("error is %v", err)
	}
}

func noMigration(t *testing.T, m *traveller) {
	for i := range testLab.Hosts {
		s, err := open(t, i).MigrationStatus(t.Context(), m.Name)
		if err != nil || s.UnderWay || s.Host != testLab.Hosts[m.at].Name || s.State != "running" || s.UUID != m.UUID {
			t.Errorf("it is %+v, %v", s, err)
		}
		_, err = open(t, i).AbortMigration(t.Context(), m.Name)
		fails(t, err, migrate.ErrNone)
	}
	_, err := open(t, 0).MigrationStatus(t.Context(), "nothing")
	fails(t, err, domain.ErrNotFound)
}

func abortedInPreflight(t *testing.T, m *traveller) {
	h, reached, released := open(t, m.at), make(chan struct{}), make(chan struct{})
	h.fault = func(_, step string, when phase) error {
		if step == "check" && when == before {
			close(reached)
			<-released
		}
		return nil
	}
	m.noSecretThere(t)
	m.speed(t, "1") // should it get that far
	ended := m.leavesWith(t, h, reached)
	s := m.seen(t, "preflight")
	if !s.Watched() || s.From != testLab.Hosts[m.at].Name || s.To != testLab.Hosts[m.there()].Name || s.Progress != nil {
		t.Errorf("it is %+v", s)
	}
	time.AfterFunc(100*time.Millisecond, func() { close(released) })
	m.aborted(t)
	m.stays(t, result(t, ended))
	m.settled(t, m.at)
}

func abortedWhileCopying(t *testing.T, m *traveller) {
	ended := m.leaves(t)
	s := m.seen(t, "copy")
	if p := s.Progress; !s.Watched() || p == nil || p.Total < guestMemory/2 || p.Remaining == 0 || p.Percent() > 100 || p.Elapsed == 0 {
		t.Errorf("it is %+v, %+v", s, p)
	}
	m.aborted(t)
	m.stays(t, result(t, ended))
	m.settled(t, m.at)
}

// virshMigrates moves it without vmdisk.
func (m *traveller) virshMigrates(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("virsh", "-q", "-c", testLab.Hosts[m.at].URI, "migrate", "--live", "--p2p", "--persistent",
		"--undefinesource", m.UUID, testLab.Hosts[m.there()].URI)
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

func abortedWithoutVmdisk(t *testing.T, m *traveller) {
	_, _, err := open(t, m.there()).SetSecret(t.Context())
	must(t, err)
	m.speed(t, "1")
	cmd := m.virshMigrates(t)
	if s := m.seen(t, "copy"); s.Operation != nil || s.Watched() || s.From != testLab.Hosts[m.at].Name {
		t.Errorf("it is %+v", s)
	}
	m.aborted(t)
	if cmd.Wait() == nil {
		t.Error("virsh has moved it")
	}
	m.noSecretThere(t)
	m.alone(t)
	m.settled(t, m.at)
}

// alone waits until the cluster has forgotten a QEMU that was killed on the other host.
func (m *traveller) alone(t *testing.T) {
	t.Helper()
	cluster, n := mustCluster(t, open(t, m.at)), disk.Name{Pool: disk.VMPool, Image: disk.RootDiskName(m.UUID)}
	for ctx := waiting(t); ; {
		if all, err := cluster.Watchers(ctx, n); err != nil || len(all) == 1 {
			must(t, err)
			return
		}
		must(t, sleep(ctx, 200*time.Millisecond))
	}
}

// Nobody watches any more, and the hosts go on: an abort settles it as a repair does.
func abortedWithoutClient(t *testing.T, m *traveller) {
	m.noSecretThere(t)
	m.speed(t, "1")
	client, _ := sleeper{Do: "migrate", VM: m.UUID, At: m.at, Dest: testLab.Hosts[m.there()].URI}.runs(t, "copying")
	must(t, client.Process.Kill())
	_ = client.Wait()
	s := m.seen(t, "copy")
	if s.Watched() || s.Operation == nil || s.Operation.State != Interrupted {
		t.Errorf("it is %+v", s)
	}
	m.aborted(t)
	m.settled(t, m.at)
}

func abortedByVirsh(t *testing.T, m *traveller) {
	ended := m.leaves(t)
	virsh(t, m.at, "domjobabort", m.UUID)
	m.stays(t, result(t, ended))
	m.settled(t, m.at)
}

// Afterwards nobody who had the disk open has it any more, nor its lock, and the source
// has no trace of the machine.
func locksHandedOver(t *testing.T, m *traveller) {
	m.fast(t)
	m.alone(t)
	n := disk.Name{Pool: disk.VMPool, Image: disk.RootDiskName(m.UUID)}
	cluster := mustCluster(t, open(t, m.at))
	was, err := cluster.Use(t.Context(), n)
	if err != nil || was.Lock == "" || len(was.Watchers) != 1 {
		t.Fatalf("before it is %+v, %v", was, err)
	}
	moved, err := open(t, m.at).Migrate(t.Context(), m.Name, testLab.Hosts[m.there()].URI, MigrateOptions{})
	must(t, err)
	if !moved.HandedOver {
		t.Error("it is not confirmed")
	}
	now, err := cluster.Use(t.Context(), n)
	if err != nil || len(now.Watchers) != 1 || now.Watchers[0] == was.Watchers[0] || now.Lock == was.Lock {
		t.Errorf("after it is %+v, %v; before %+v", now, err, was)
	}
	kept, err := domain.Persistent(t.Context(), connected(t, m.there()), m.UUID)
	if err != nil || !kept {
		t.Errorf("it is kept: %v, %v", kept, err)
	}
	m.settled(t, m.there())
}
