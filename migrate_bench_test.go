// What a migration costs against virsh's of the same guest, there and back again.

package vmdisk

import (
	"bytes"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"
)

// BenchmarkMigrate compares vmdisk migrate with virsh migrate, as processes. A guest
// goes back and forth, and each carries it in both directions.
func BenchmarkMigrate(b *testing.B) {
	vmdisk := buildCommand(b)
	for _, kind := range []struct {
		name  string
		flags []string
	}{{"bare", []string{"--no-check", "--no-forecast"}}, {"whole", nil}} {
		b.Run(kind.name, func(b *testing.B) {
			h := open(b, 0)
			vm := guest(b, h)
			consoleOf(vm.Name).writes(b, 0, "vda")
			_, _, err := open(b, 1).SetSecret(b.Context()) // virsh does not set it
			must(b, err)
			ours := func(from, to string) *exec.Cmd {
				args := append([]string{"--connect", from, "migrate", vm.Name, to, "--no-progress"}, kind.flags...)
				return command(vmdisk, args...)
			}
			theirs := func(from, to string) *exec.Cmd {
				return command("virsh", "-c", from, "migrate", "--live", "--p2p", "--persistent", "--undefinesource", vm.Name, to)
			}
			there(b, vm.Name, ours, theirs)
		})
	}
}

// there and back again, by ours and theirs in turn, so that either goes from each host.
func there(b *testing.B, vm string, ours, theirs func(from, to string) *exec.Cmd) {
	b.Helper()
	var wall, down [2][]float64 // ms
	from, to := testLab.Hosts[0].URI, testLab.Hosts[1].URI
	for i := range 4 * b.N {
		who := (i + i/2) % 2 // 0 1 1 0: there by ours, back by theirs, and the other way round
		c := []func(from, to string) *exec.Cmd{ours, theirs}[who](from, to)
		begin := time.Now()
		out, err := c.CombinedOutput()
		took := time.Since(begin)
		if err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		wall[who] = append(wall[who], took.Seconds()*1000)
		down[who] = append(down[who], downtime(b, to, vm))
		from, to = to, from
	}
	b.ReportMetric(0, "ns/op")
	for name, all := range map[string][2][]float64{"wall": wall, "downtime": down} {
		mine, other := median(all[0]), median(all[1])
		b.ReportMetric(mine, "our-"+name+"-ms")
		b.ReportMetric(other, "virsh-"+name+"-ms")
		b.ReportMetric(mine/other, name+"-ratio")
	}
}

func median(all []float64) float64 {
	slices.Sort(all)
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}

var totalDowntime = regexp.MustCompile(`Total downtime:\s+(\d+)`)

// downtime is what the destination's libvirt says of a migration that has come.
func downtime(b *testing.B, uri, vm string) float64 {
	b.Helper()
	out, err := command("virsh", "-c", uri, "domjobinfo", vm, "--completed").CombinedOutput()
	found := totalDowntime.FindSubmatch(bytes.TrimSpace(out))
	if err != nil || found == nil {
		b.Fatal(fmt.Errorf("%w: %s", err, out))
	}
	ms, err := strconv.ParseFloat(string(found[1]), 64)
	must(b, err)
	return ms
}
