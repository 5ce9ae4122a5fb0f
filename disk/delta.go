// What changed in an image between two of its snapshots: by the object maps, which
// cost nothing, as far as they can be believed.

package disk

import (
	"context"
	"slices"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// minUnit is the least piece of an image that is looked at as one. A unit is a
// whole number of objects: librbd before 1.17 may report wrong offsets otherwise.
const minUnit = 4 << 20

// units is a set of numbers of units.
type units []uint64

func newUnits(size, unit int64) units { return make(units, ((size+unit-1)/unit+63)/64) }

func (u units) set(n int64) { u[n/64] |= 1 << (n % 64) }

func (u units) has(n int64) bool {
	return n/64 < int64(len(u)) && u[n/64]&(1<<(n%64)) != 0
}

func (u units) count() (n int64) {
	for i := range int64(len(u)) * 64 {
		if u.has(i) {
			n++
		}
	}
	return n
}

// add puts those of another set in, as far as they fit.
func (u units) add(other units) {
	for i := range min(len(u), len(other)) {
		u[i] |= other[i]
	}
}

// wholeDiff is which units differ between the snapshot from, or nothing, and what
// img is opened at. It may be too many.
func wholeDiff(img *rbd.Image, n Name, from string, unit int64) (units, error) {
	size, err := img.GetSize()
	if err != nil {
		return nil, wrap("read size of", n.String(), err)
	}
	found := newUnits(int64(size), unit)
	parent := rbd.ExcludeParent
	if from == "" {
		parent = rbd.IncludeParent
	}
	err = img.DiffIterate(rbd.DiffIterateConfig{
		SnapName: from, Length: size, IncludeParent: parent, WholeObject: rbd.EnableWholeObject,
		Callback: func(off, length uint64, _ int, _ any) int {
			last := int64(min(off+length, size)-1) / unit
			for i := int64(off) / unit; i <= last; i++ {
				found.set(i)
			}
			return 0
		},
	})
	return found, wrap("read changes of", n.String(), err)
}

// exactDiff is what differs within one unit, to the byte, relative to its start.
func exactDiff(img *rbd.Image, n Name, from string, start, length int64) ([]span, error) {
	var found []span
	err := img.DiffIterate(rbd.DiffIterateConfig{
		SnapName: from, Offset: uint64(start), Length: uint64(length),
		IncludeParent: rbd.ExcludeParent, WholeObject: rbd.DisableWholeObject,
		Callback: func(off, n uint64, _ int, _ any) int {
			found = append(found, span{int64(off) - start, int64(n)})
			return 0
		},
	})
	slices.SortFunc(found, func(a, b span) int { return int(a.off - b.off) })
	return found, wrap("read changes of", n.String(), err)
}

// delta looks for what changed in an image between two snapshots.
type delta struct {
	io   *rados.IOContext
	n    Name   // the image at the later snapshot
	from string // the earlier one
	unit int64
	// first says of a snapshot that the image had none before it.
	first func(snapshot string) bool
}

// changed is which units may have changed.
//
// The object maps alone are not to be believed after a rollback: librbd (seen on
// 16.2) gives the image the map of the snapshot that it went back to, in which an object
// that differs from a later snapshot can be marked as unchanged. Of such a
// rollback nothing is noted anywhere. But it touches every object that changed
// since its target; if one that is known to have changed just before from is
// untouched, then there was none.
func (d delta) changed(ctx context.Context, img *rbd.Image) (units, error) {
	fast, err := wholeDiff(img, d.n, d.from, d.unit)
	if err != nil {
		return nil, err
	}
	honest, err := d.honest(ctx, img, fast)
	if err != nil || honest {
		return fast, err
	}
	// Then whatever exists may have changed; the OSDs are asked about each.
	for _, snap := range []string{d.from, d.n.Snap} {
		existing, err := d.between("", snap)
		if err != nil {
			return nil, err
		}
		fast.add(existing)
	}
	return fast, nil
}

// samples is how many units are looked at where one would do.
const samples = 8

func (d delta) honest(ctx context.Context, img *rbd.Image, fast units) (bool, error) {
	list, err := img.GetSnapshotNames()
	if err != nil {
		return false, wrap("list snapshots of", d.n.String(), err)
	}
	slices.SortFunc(list, func(a, b rbd.SnapInfo) int { return int(int64(a.Id) - int64(b.Id)) })
	i := slices.IndexFunc(list, func(s rbd.SnapInfo) bool { return s.Name == d.from })
	size, err := img.GetSize()
	if err != nil {
		return false, wrap("read size of", d.n.String(), err)
	}
	for ; i > 0; i-- {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		before, err := d.between(list[i-1].Name, list[i].Name)
		if err != nil {
			return false, err
		}
		var looked int
		for n := int64(0); n*d.unit < int64(size) && looked < samples; n++ {
			if !before.has(n) || fast.has(n) {
				continue
			}
			looked++
			exact, err := exactDiff(img, d.n, d.from, n*d.unit, min(d.unit, int64(size)-n*d.unit))
			if err != nil || len(exact) > 0 {
				return false, err
			}
		}
		if looked > 0 {
			return true, nil
		}
		// All that a rollback to before list[i] touched is in fast already.
	}
	return len(list) > 0 && d.first(list[0].Name), nil
}

// between is which units differ between two snapshots, "" being nothing.
func (d delta) between(from, to string) (units, error) {
	at := d.n
	at.Snap = to
	img, err := openImage(d.io, at, rbd.OpenImageReadOnly)
	if err != nil {
		return nil, err
	}
	defer closeImage(img, time.Now())
	return wholeDiff(img, at, from, d.unit)
}
