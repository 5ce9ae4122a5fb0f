package vmdisk

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/lab"
	"github.com/vmdisk/vmdisk/migrate"
)

const someMoves = 10

var soakMoves = flag.Int("soak.moves", someMoves, "how often TestMigrateManyTimes moves its guest; unless it is 10, none may stand still for too long")

// mostDowntime is what is asked for in many moves. QEMU reckons with the bandwidth that
// it sees: on a machine that other tests keep busy it can be wrong.
const mostDowntime = 500 * time.Millisecond

// Moves back and forth of a guest that writes all the time, with a volume attached,
// resized and detached on the way: none stands still for longer than was asked, and not
// one acknowledged write is missing at the end.
func TestMigrateManyTimes(t *testing.T) {
	hosts := []*Host{open(t, 0), open(t, 1)}
	vm, v := guest(t, hosts[0]), volume(t, hosts[0])
	c := consoleOf(vm.Name)
	c.writes(t, 0, "vda")
	attached(t, hosts[0], vm, v)
	c.writes(t, 0, "vdb")
	var downtimes []time.Duration
	for i := range *soakMoves {
		from, to := i%2, (i+1)%2
		left := adminSockets(t, from, vm)
		m, err := hosts[from].Migrate(t.Context(), vm.Name, testLab.Hosts[to].URI,
			MigrateOptions{Policy: migrate.Policy{Downtime: mostDowntime}})
		must(t, err)
		if m.To != testLab.Hosts[to].Name || m.Transferred == 0 || m.Downtime <= 0 || m.Downtime > m.Elapsed ||
			*soakMoves != someMoves && m.Downtime > mostDowntime {
			t.Errorf("migration is %+v", m)
		}
		if has := adminSockets(t, to, vm); len(has) != len(left) {
			t.Errorf("the admin sockets were %v and are %v", left, has)
		}
		for _, socket := range left {
			if _, err := os.Stat(socket); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the source's admin socket is still there: %v", err)
			}
		}
		downtimes = append(downtimes, m.Downtime)
		c.writes(t, to, "vda")
		c.writes(t, to, "vdb")
		if i == 4 {
			_, err := hosts[to].Resize(t.Context(), vm.Name, 128<<20, false)
			must(t, err)
		}
	}
	slices.Sort(downtimes)
	t.Logf("%d moves, downtime %v at the median and %v at most", len(downtimes), downtimes[len(downtimes)/2], downtimes[len(downtimes)-1])
	last := *soakMoves % 2
	vols, err := hosts[0].Volumes(t.Context())
	must(t, err)
	if len(vols) != 1 || vols[0].Attached == nil || vols[0].Attached.Host != testLab.Hosts[last].Name {
		t.Errorf("the volume's record is %+v", vols)
	}
	if _, err := hosts[last].Detach(t.Context(), vm.Name, v.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := hosts[last].Stop(t.Context(), vm.Name, true); err != nil {
		t.Fatal(err)
	}
	for target, image := range map[string]string{"vda": "vms/" + vm.UUID + "_disk", "vdb": "volumes/volume-" + v.ID} {
		blocks, err := testLab.Blocks(t.Context(), image)
		must(t, err)
		if err := blocks.Check(c.acked(t, target)); err != nil {
			t.Errorf("%s: %v", target, err)
		}
	}
}

// Cancelled while memory is copied, at 2 MiB a second, the machine runs on where
// it was.
func TestMigrateCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cfg := config(0)
	cfg.Observe = func(e Event) {
		watchLeaks(e)
		if e.Kind == Progress && e.Op == "migrate" && e.Bytes > 4<<20 {
			cancel()
		}
	}
	h, err := Open(ctx, cfg)
	must(t, err)
	vm := guest(t, h)
	c := consoleOf(vm.Name)
	c.writes(t, 0, "vda")
	out, err := exec.Command("virsh", "-c", testLab.Hosts[0].URI, "migrate-setspeed", vm.Name, "2").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	was := stateNow(t)
	_, err = h.Migrate(ctx, vm.Name, testLab.Hosts[1].URI, MigrateOptions{})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error is %v", err)
	}
	was.unchanged(t)
	c.writes(t, 0, "vda")
	must(t, h.Close())
}

func TestMigrateRefuses(t *testing.T) {
	h := open(t, 0)
	vm := guest(t, h)
	off := bootOf(t, open(t, 1), BootOptions{Image: "guest", Memory: guestMemory, NoStart: true})
	c := consoleOf(vm.Name)
	c.writes(t, 0, "vda")
	was := stateNow(t)
	tests := []struct {
		name string
		vm   string
		dest string
		want error
	}{
		{"same host", vm.Name, testLab.Hosts[0].URI, migrate.ErrSameHost},
		{"no such VM", "nothing", testLab.Hosts[1].URI, domain.ErrNotFound},
		{"nobody listens", vm.Name, "qemu+tcp://127.0.1.3:1/system", domain.ErrUnreachable},
		{"not a URI", vm.Name, "://", domain.ErrInvalid},
		{"odd host", vm.Name, "-x", domain.ErrInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := h.Migrate(t.Context(), tt.vm, tt.dest, MigrateOptions{})
			if !errors.Is(err, tt.want) {
				t.Errorf("error is %v, want %v", err, tt.want)
			}
			was.unchanged(t)
		})
	}
	t.Run("shut off", func(t *testing.T) {
		_, err := open(t, 1).Migrate(t.Context(), off.Name, testLab.Hosts[0].URI, MigrateOptions{})
		if !errors.Is(err, domain.ErrNotRunning) {
			t.Errorf("error is %v", err)
		}
		was.unchanged(t)
	})
	c.writes(t, 0, "vda")
}

// A destination that cannot read the disk says so before anything moves.
func TestMigrateChecksCeph(t *testing.T) {
	h := open(t, 0)
	vm := guest(t, h)
	consoleOf(vm.Name).writes(t, 0, "vda")
	breakCeph(t, testLab.Hosts[1])
	was := stateNow(t)
	cfg := config(0)
	cfg.Timeout = 10 * time.Second
	hasty, err := Open(t.Context(), cfg)
	must(t, err)
	defer func() { must(t, hasty.Close()) }()
	_, err = hasty.Migrate(t.Context(), vm.Name, testLab.Hosts[1].URI, MigrateOptions{})
	var failed *migrate.CheckError
	if !errors.As(err, &failed) || !strings.Contains(err.Error(), "compute2") {
		t.Errorf("error is %v", err)
	}
	was.unchanged(t)
	consoleOf(vm.Name).writes(t, 0, "vda")
}

func TestCheckMigration(t *testing.T) {
	var notes []string
	h := impatient(t, 0, 0, func(e Event) {
		if e.Kind == Note {
			notes = append(notes, e.Detail)
		}
	})
	vm := guest(t, h)
	was := stateNow(t)
	found, err := h.CheckMigration(t.Context(), vm.Name, testLab.Hosts[1].URI, MigrateOptions{})
	must(t, err)
	for _, c := range found.Checks {
		if !c.OK {
			t.Errorf("%+v", c)
		}
	}
	if f := found.Forecast; f == nil || f.Memory <= 0 || f.Memory > guestMemory || f.Elapsed <= 0 {
		t.Errorf("forecast is %+v: %v", f, notes)
	}
	was.unchanged(t)
}

// breakCeph makes every connection of a host's clients to the cluster fail.
func breakCeph(t *testing.T, host *lab.Host) {
	t.Helper()
	good, err := os.ReadFile(host.Conf)
	must(t, err)
	bad := append(bytes.Clone(good), "\n[global]\nms inject socket failures = 1\nclient mount timeout = 3\n"...)
	must(t, os.WriteFile(host.Conf, bad, 0o644))
	t.Cleanup(func() { must(t, os.WriteFile(host.Conf, good, 0o644)) })
}
