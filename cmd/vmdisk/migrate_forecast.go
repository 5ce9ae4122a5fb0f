// What is known of a migration before it, as JSON.

package main

import (
	"github.com/vmdisk/vmdisk"
	"github.com/vmdisk/vmdisk/migrate"
)

type checked struct {
	Checks   []migrate.Check `json:"checks"`
	Forecast *forecast       `json:"forecast,omitempty"`
}

func checksOf(c vmdisk.MigrationCheck) checked {
	return checked{Checks: append([]migrate.Check{}, c.Checks...), Forecast: forecastOf(c.Forecast)}
}

type forecast struct {
	Elapsed     int64         `json:"elapsed_ms"` // 0 if it does not converge
	Downtime    int64         `json:"downtime_ms"`
	Transferred int64         `json:"transferred_bytes"`
	Passes      int           `json:"passes"`
	Converges   bool          `json:"converges"`
	CallsFor    migrate.Stall `json:"calls_for,omitempty"`
	Memory      int64         `json:"memory_bytes"`
	Dirty       int64         `json:"dirty_bytes_per_second"`
	Bandwidth   int64         `json:"bandwidth_bytes_per_second"`
	Basis       migrate.Basis `json:"bandwidth_basis"`
}

func forecastOf(f *migrate.Forecast) *forecast {
	if f == nil {
		return nil
	}
	return &forecast{
		Elapsed: f.Elapsed.Milliseconds(), Downtime: f.Downtime.Milliseconds(), Transferred: f.Transferred,
		Passes: f.Passes, Converges: f.Converges, CallsFor: f.CallsFor,
		Memory: f.Memory, Dirty: f.Dirty, Bandwidth: f.Bandwidth, Basis: f.Basis,
	}
}
