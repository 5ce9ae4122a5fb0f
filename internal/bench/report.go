// What came of a run: for people, for the docs, and for the next run.

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
)

// report is a run.
type report struct {
	Command  string   `json:"command"`
	Versions []string `json:"versions"`
	Machine  string   `json:"machine"`
	Took     string   `json:"took"`
	Rounds   int      `json:"rounds"`
	Rows     []row    `json:"rows"`
	Growth   []growth `json:"growth,omitempty"`
}

// newReport says on what it is measured.
func (b *bench) newReport(ctx context.Context) (*report, error) {
	out, err := b.shell(ctx, `$VMDISK --version; rbd --version | cut -d' ' -f1-3; qemu-img --version | head -1 | cut -d'(' -f1
		echo "libvirt $(virsh --version)"; dpkg-query -W -f '${Package} ${Version}\n' python3-nova python3-glance-store
		. /etc/os-release; echo "$PRETTY_NAME"`)
	if err != nil {
		return nil, err
	}
	machine, err := b.shell(ctx, `echo "$(nproc) × $(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -1), $(awk '/MemTotal/ { printf "%.0f GiB", $2/1048576 }' /proc/meminfo), Linux $(uname -r)"`)
	if err != nil {
		return nil, err
	}
	r := &report{Command: "make bench", Machine: strings.TrimSpace(machine.text), Rounds: b.rounds}
	for line := range strings.Lines(out.text) {
		r.Versions = append(r.Versions, strings.TrimSpace(line))
	}
	return r, nil
}

// print shows the table on a terminal.
func (r *report) print(to io.Writer) {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	for _, row := range r.Rows {
		fmt.Fprintf(w, "%s\n", row.Name)
		for _, s := range row.Series {
			fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", s.Name, seconds(median(s.Seconds)), s.ratio(), s.verdict())
		}
	}
	for _, g := range r.Growth {
		fmt.Fprintf(w, "%s in a pool of\t\t\t\n", g.Name)
		for i, n := range g.Disks {
			fmt.Fprintf(w, "  %d disks\t%s\t%.0f MiB\t\n", n, seconds(g.Seconds[i]), g.PeakMiB[i])
		}
		fmt.Fprintf(w, "  exponent\t%.2f\t%.2f\t%s\n", g.Time, g.Memory, g.verdict())
	}
	_ = w.Flush()
	fmt.Fprintf(to, "\n%s, %s\n", r.Took, r.Machine)
}

func (s series) ratio() string {
	if s.Ratio == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f (%.2f to %.2f)", s.Ratio, s.Low, s.High)
}

func (s series) verdict() string {
	switch {
	case s.Least == 0:
		return ""
	case s.met():
		return fmt.Sprintf("met: %g", s.Least)
	}
	return fmt.Sprintf("missed: %g", s.Least)
}

func (g growth) verdict() string {
	switch {
	case !g.Flat:
		return ""
	case g.Time <= flatExponent && g.Memory <= flatExponent:
		return "met: does not grow"
	}
	return "missed: grows"
}

// missed is the error for what is not met.
func (r *report) missed() error {
	var errs []error
	for _, row := range r.Rows {
		for _, s := range row.Series {
			if !s.met() {
				errs = append(errs, fmt.Errorf("%s is %.2f times as fast as %s, not %g", row.Name, s.Ratio, s.Name, s.Least))
			}
		}
	}
	for _, g := range r.Growth {
		if strings.HasPrefix(g.verdict(), "missed") {
			errs = append(errs, fmt.Errorf("%s grows with the number of disks: exponent %.2f, of its memory %.2f", g.Name, g.Time, g.Memory))
		}
	}
	return errors.Join(errs...)
}

// write writes bench.json, BENCHMARKS.md and the plots.
func (r *report) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "bench.json"), append(data, '\n'), 0o644),
		os.WriteFile(filepath.Join(dir, "BENCHMARKS.md"), []byte(r.markdown()), 0o644),
		r.plotRatios(filepath.Join(dir, "bench.svg")),
		r.plotGrowth(filepath.Join(dir, "growth.svg")))
}

// markdown is the page for the docs.
func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, `# Benchmarks

Written by %s. Each contender is a process, from its start to its end, on one lab (one
monitor, one OSD on a file, guests without KVM), in turn, %d rounds. Times are medians.
The ratio says how many times as fast vmdisk is, by the medians, and in brackets the
lowest and highest of the rounds. The floor is the bare calls into go-ceph and libvirt
with as many workers and nothing around them. Absolute times are of this machine, and
do not last; ratios do.

![How many times as fast vmdisk is](bench.svg)

| work | contender | time | ratio | peak memory | at least |
| --- | --- | ---: | ---: | ---: | --- |
`, "`"+r.Command+"`", r.Rounds)
	for _, row := range r.Rows {
		for i, s := range row.Series {
			name := ""
			if i == 0 {
				name = row.Name
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %.0f MiB | %s |\n", name, s.Name, seconds(median(s.Seconds)), s.ratio(), s.PeakMiB, s.verdict())
		}
	}
	if len(r.Growth) > 0 {
		fmt.Fprintf(&b, `
## How the cost grows

A command in a pool that has so many disks. The exponent is that of the power that fits
best from %d disks on: 0 is a cost that does not depend on them, 1 one that is
proportional.

![How the cost grows](growth.svg)

| command |`, fitFrom)
		for _, n := range r.Growth[0].Disks {
			fmt.Fprintf(&b, " %d |", n)
		}
		b.WriteString(" exponent | of memory | |\n| --- |" + strings.Repeat(" ---: |", len(r.Growth[0].Disks)+2) + " --- |\n")
		for _, g := range r.Growth {
			fmt.Fprintf(&b, "| %s |", g.Name)
			for i := range g.Disks {
				fmt.Fprintf(&b, " %s, %.0f MiB |", seconds(g.Seconds[i]), g.PeakMiB[i])
			}
			fmt.Fprintf(&b, " %.2f | %.2f | %s |\n", g.Time, g.Memory, g.verdict())
		}
	}
	fmt.Fprintf(&b, "\n## On what\n\n%s. It took %s.\n\n- %s\n", r.Machine, r.Took, strings.Join(r.Versions, "\n- "))
	return b.String()
}
