package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		all  []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{3, 1, 2}, 2}, {[]float64{4, 1, 2, 3}, 2.5}} {
		if got := median(tt.all); got != tt.want {
			t.Errorf("median of %v is %v, want %v", tt.all, got, tt.want)
		}
	}
}

func TestExponent(t *testing.T) {
	x := []float64{10, 100, 1000}
	for _, want := range []float64{0, 0.5, 1, 2} {
		var y []float64
		for _, v := range x {
			y = append(y, 7*math.Pow(v, want))
		}
		if got := exponent(x, y); math.Abs(got-want) > 1e-9 {
			t.Errorf("exponent is %v, want %v", got, want)
		}
	}
}

func reportOf(ratio, spread float64, grows float64) *report {
	s := series{Name: "rbd", Seconds: []float64{1}, Ratio: ratio, Low: ratio - spread, High: ratio + spread, Least: 2}
	return &report{Rows: []row{{Name: "list", Series: []series{{Name: "vmdisk", Seconds: []float64{1}}, s}}},
		Growth: []growth{{Name: "rm", Disks: []int{100, 1000}, Seconds: []float64{1, 1}, PeakMiB: []float64{1, 1}, Time: grows, Flat: true}}}
}

// A ratio that fell by more than two runs differ by is a regression, and so is a cost
// that began to grow.
func TestCompare(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, r *report) string {
		path := filepath.Join(dir, name)
		data, err := json.Marshal(r)
		if err == nil {
			err = os.WriteFile(path, data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	old := write("old", reportOf(10, 1, 0))
	for _, tt := range []struct {
		name string
		now  *report
		says string
	}{
		{"the same", reportOf(10, 1, 0), ""},
		{"better", reportOf(20, 1, 0), ""},
		{"within what runs differ by", reportOf(9, 1, 0.05), ""},
		{"worse by the medians, not by every round", reportOf(8, 3, 0), ""},
		{"worse", reportOf(7, 1, 0), "list against rbd: 7.00 times as fast, was 10.00"},
		{"grows", reportOf(10, 1, 0.9), "rm grows with exponent 0.90, was 0.00"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			err := compareFiles(&out, old, write("new", tt.now))
			if (err == nil) != (tt.says == "") || err != nil && err.Error() != tt.says {
				t.Errorf("error is %v", err)
			}
			if strings.Contains(out.String(), "regression") != (tt.says != "") {
				t.Errorf("it prints\n%s", &out)
			}
		})
	}
	if err := compareFiles(&strings.Builder{}, old, write("broken", nil)+"x"); err == nil {
		t.Error("a missing file is fine")
	}
}

// What is missed is an error, and is said in the page.
func TestMissed(t *testing.T) {
	if err := reportOf(2, 0, 0).missed(); err != nil {
		t.Error(err)
	}
	r := reportOf(1.5, 0, 0.5)
	err := r.missed()
	if err == nil || !strings.Contains(err.Error(), "1.50 times as fast as rbd, not 2") || !strings.Contains(err.Error(), "rm grows") {
		t.Errorf("error is %v", err)
	}
	if page := r.markdown(); strings.Count(page, "missed") != 2 {
		t.Errorf("the page is\n%s", page)
	}
}

// The plots are made of any run.
func TestPlots(t *testing.T) {
	dir := t.TempDir()
	if err := reportOf(3, 1, 0.1).write(dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bench.svg", "growth.svg", "BENCHMARKS.md", "bench.json"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}
