// Medians, and ratios with their spread.

package main

import (
	"math"
	"slices"
	"time"
)

// row is what came of a row of the table.
type row struct {
	Name   string   `json:"name"`
	Series []series `json:"series"` // vmdisk first
}

// series is what came of a contender.
type series struct {
	Name    string    `json:"name"`
	Seconds []float64 `json:"seconds"`
	PeakMiB float64   `json:"peak_mib"`
	// Ratio says how many times as fast as this one vmdisk is, by the medians; Low and
	// High are the lowest and highest of all rounds.
	Ratio float64 `json:"ratio,omitempty"`
	Low   float64 `json:"low,omitempty"`
	High  float64 `json:"high,omitempty"`
	Least float64 `json:"least,omitempty"` // what Ratio is to be; 0 is not said
}

// against compares a series with vmdisk's.
func (s *series) against(ours series) {
	s.Ratio = median(s.Seconds) / median(ours.Seconds)
	s.Low, s.High = math.Inf(1), 0
	for i, theirs := range s.Seconds {
		if i < len(ours.Seconds) {
			r := theirs / ours.Seconds[i]
			s.Low, s.High = min(s.Low, r), max(s.High, r)
		}
	}
}

// met says whether vmdisk is as fast as it is to be.
func (s series) met() bool { return s.Ratio >= s.Least }

func median(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	n := len(sorted)
	if n == 0 {
		return math.NaN()
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// exponent is that of the power of x that fits y best: 0 is a cost that does not
// depend on x, 1 one that is proportional to it.
func exponent(x, y []float64) float64 {
	var sx, sy, sxx, sxy float64
	for i := range x {
		lx, ly := math.Log(x[i]), math.Log(y[i])
		sx, sy, sxx, sxy = sx+lx, sy+ly, sxx+lx*lx, sxy+lx*ly
	}
	n := float64(len(x))
	return (n*sxy - sx*sy) / (n*sxx - sx*sx)
}

func duration(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond).String()
	default:
		return d.Round(10 * time.Microsecond).String()
	}
}

func seconds(s float64) string { return duration(time.Duration(s * float64(time.Second))) }
