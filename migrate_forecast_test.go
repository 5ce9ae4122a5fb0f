package vmdisk

import (
	"errors"
	"os/exec"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/migrate"
)

// A forecast that knows the way between the hosts is within a factor of what comes. That
// a guest writes faster than can be sent is seen.
func TestMigrateForecast(t *testing.T) {
	hosts := []*Host{open(t, 0), open(t, 1)}
	vm := guest(t, hosts[0])
	consoleOf(vm.Name).writes(t, 0, "vda")
	cluster, err := hosts[0].Cluster(t.Context())
	must(t, err)
	seen := func() (disk.Link, error) {
		return cluster.Link(t.Context(), disk.VMPool, testLab.Hosts[1].Name, testLab.Hosts[0].Name)
	}
	before, err := seen()
	must(t, gone(err))
	first, err := hosts[0].Migrate(t.Context(), vm.Name, testLab.Hosts[1].URI, MigrateOptions{NoCheck: true})
	must(t, err)
	if first.Forecast == nil || first.Forecast.Dirty > 16<<20 {
		t.Fatalf("forecast for an idle guest is %+v", first.Forecast)
	}
	link, err := seen()
	switch must(t, gone(err)); {
	case first.Rate == 0: // it was over before QEMU had a rate
		if link != before {
			t.Errorf("of a migration with %+v is remembered %+v", first.Result, link)
		}
	case link.Rate != first.Rate || link.Overhead <= 0 || time.Since(link.Seen) > time.Minute:
		t.Errorf("of a migration with %+v is remembered %+v", first.Result, link)
	}
	out, err := exec.Command("virsh", "-c", testLab.Hosts[1].URI, "migrate-setspeed", vm.Name, "32").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const region, rate, limit = 48 << 20, 8 << 20, 32 << 20
	must(t, testLab.Hosts[1].Dirty(waiting(t), vm.Name, rate, region))
	second, err := hosts[1].Migrate(t.Context(), vm.Name, testLab.Hosts[0].URI,
		MigrateOptions{NoCheck: true, Policy: migrate.Policy{Bandwidth: limit}})
	must(t, err)
	f := second.Forecast
	if f == nil || link.Rate > 0 && f.Bandwidth > min(limit, link.Rate) || f.Basis != migrate.Given && f.Basis != migrate.Seen {
		t.Fatalf("forecast is %+v", f)
	}
	t.Logf("dirties %d MiB/s: forecast %v; outcome %+v", f.Dirty>>20, f, second.Result)
	const factor = 3 // the machine is busy with other tests, now and not then, or the other way round
	if f.Converges && (second.Elapsed > factor*f.Elapsed || f.Elapsed > factor*second.Elapsed) {
		t.Errorf("it took %v, and the forecast was %v", second.Elapsed, f)
	}
	const more = 1 << 40
	must(t, testLab.Hosts[0].Dirty(waiting(t), vm.Name, more, region))
	load, err := domain.MeasureLoad(t.Context(), connected(t, 0), vm.UUID)
	must(t, err)
	if load.Dirty < region/2 || load.Dirty > guestMemory {
		t.Errorf("a guest that writes %d bytes again and again is seen to write %d a second", region, load.Dirty)
	}
	if f := migrate.Estimate(load, migrate.Link{}, migrate.Policy{Bandwidth: 8 << 20}); f.Converges || f.CallsFor != migrate.StallPostcopy {
		t.Errorf("forecast is %v", f)
	}
}

// What does not run cannot be measured, and no measurement is left behind.
func TestMeasureLoadFails(t *testing.T) {
	h := open(t, 0)
	off := bootOf(t, h, BootOptions{Image: "guest", Memory: guestMemory, NoStart: true})
	_, err := domain.MeasureLoad(t.Context(), connected(t, 0), off.Name)
	if err == nil || errors.Is(err, domain.ErrTimeout) {
		t.Errorf("error is %v", err)
	}
}
