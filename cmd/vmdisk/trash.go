// What image and volume commands have in common about the trash.

package main

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/vmdisk/vmdisk/disk"
)

// trashed is what is in the trash as JSON has it.
type trashed struct {
	ID string `json:"id"`
	disk.Trashed
}

func trashedImage(t disk.Trashed) trashed  { return trashed{t.Image, t} }
func trashedVolume(t disk.Trashed) trashed { return trashed{disk.VolumeID(t.Image), t} }

// listTrash prints what is in the trash.
func (c *command) listTrash(found []disk.Trashed, as func(disk.Trashed) trashed) error {
	all, rows := []trashed{}, []string{}
	for _, t := range found {
		one := as(t)
		all = append(all, one)
		rows = append(rows, strings.Join([]string{one.ID, minute(t.Deleted), minute(t.Expires)}, "\t"))
	}
	return c.ui.table(all, "the trash is empty", "ID\tDELETED\tKEPT UNTIL", rows)
}

func minute(t time.Time) string { return t.Local().Format("2006-01-02 15:04") }

// keep reads --expires, which is for --trash.
func (c *command) keep() (time.Duration, error) { return parseKeep(c.String("expires")) }

// parseKeep reads a duration in days, 14d, or one of Go's, 12h30m.
func parseKeep(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n float64
		n, err = strconv.ParseFloat(days, 64)
		d = time.Duration(n * 24 * float64(time.Hour))
		if n > math.MaxInt64/float64(24*time.Hour) {
			d = -1
		}
	}
	if err != nil || d < 0 {
		return 0, usagef("--expires %q is not a time such as 14d or 12h", text)
	}
	return d, nil
}
