package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
	"github.com/google/go-cmp/cmp"
)

// parentOf makes an image with data in some of its objects, and its protected snapshot.
func parentOf(t *testing.T, c *Cluster, image string) Name {
	t.Helper()
	n := Name{Pool: ImagePool, Image: image, Snap: ImageSnapshot}
	check(t, c.pool(t.Context(), n.Pool, func(io *rados.IOContext) error { return createImage(io, n, 20<<20, imageOrder) }))
	t.Cleanup(func() { check(t, c.RemoveImage(context.Background(), n)) })
	check(t, c.edit(t.Context(), Name{Pool: n.Pool, Image: n.Image}, func(img *rbd.Image) error {
		_, err := img.WriteAt([]byte("data"), 9<<20)
		return errors.Join(err, img.SetMetadata("colour", "blue"))
	}))
	check(t, c.CreateSnapshot(t.Context(), n))
	check(t, c.ProtectSnapshot(t.Context(), n))
	return n
}

// stored is all that Ceph has of an image apart from its data, without what differs
// from image to image.
func stored(t *testing.T, c *Cluster, n Name) map[string]string {
	t.Helper()
	all := map[string]string{}
	check(t, c.pool(t.Context(), n.Pool, func(io *rados.IOContext) error {
		id, err := imageID(io, n)
		check(t, err)
		listed, err := listedID(io, n)
		check(t, err)
		all["listed"] = fmt.Sprint(listed == id)
		omap, err := io.GetAllOmapValues("rbd_header."+id, "", "", 100)
		check(t, err)
		for i, key := range slices.Sorted(maps.Keys(omap)) {
			value := omap[key]
			switch number, snapshot := strings.CutPrefix(key, "snapshot_"); {
			case snapshot:
				states, err := readObject(io, "rbd_object_map."+id+"."+number)
				check(t, err)
				all[fmt.Sprint("object map of key ", i)] = fmt.Sprintf("%q", states)
			case key != "snap_seq" && !strings.HasSuffix(key, "_timestamp"):
				all[key] = fmt.Sprintf("%q", value)
			}
			if prefix, _, err := decodeString(value); key == "object_prefix" && err == nil {
				all[key] = strings.ReplaceAll(prefix, id, "ID")
			}
		}
		objectMap, err := readObject(io, "rbd_object_map."+id)
		check(t, err)
		all["object map"] = fmt.Sprintf("%q", objectMap)
		children, err := io.GetAllOmapValues(childrenObject, "", "", 1000)
		check(t, ignore(err, ErrNotFound))
		for key, value := range children {
			if bytes.Contains(value, []byte(id)) {
				all["child of"] = fmt.Sprintf("%q", key)
			}
		}
		return nil
	}))
	return all
}

// A clone that we made is, to the last byte but its name and its age, what librbd
// makes.
func TestCloneAsLibrbd(t *testing.T) {
	c := open(t)
	src := parentOf(t, c, "clone-parent")
	for _, o := range []struct {
		size  int64
		order uint8
	}{{}, {size: 20 << 20}, {size: 1 << 30}, {size: 30<<20 + 512}, {order: 24}, {size: 1 << 30, order: 24}} {
		t.Run(fmt.Sprintf("%d of %d", o.size, o.order), func(t *testing.T) {
			ours, theirs := Name{Pool: VMPool, Image: "clone-ours"}, Name{Pool: VMPool, Image: "clone-theirs"}
			t.Cleanup(func() {
				check(t, errors.Join(c.RemoveDisk(context.Background(), ours), c.RemoveDisk(context.Background(), theirs)))
			})
			check(t, c.fromSnapshot(t.Context(), src, func(from *rados.IOContext, img *rbd.Image) error {
				return c.pool(t.Context(), VMPool, func(to *rados.IOContext) error {
					origin, err := c.plain(img, src, from, to)
					if err == nil && origin == nil {
						t.Error("the image is not taken for a plain one")
					}
					return errors.Join(err, c.cloneOrdinary(t.Context(), img, src, to, o.size, cloneForm{order: o.order}, []Name{theirs}),
						c.cloneAll(t.Context(), from, img, src, o.size, o.order, []Name{ours}))
				})
			}))
			if diff := cmp.Diff(stored(t, c, theirs), stored(t, c, ours)); diff != "" {
				t.Errorf("librbd's clone differs from ours:\n%s", diff)
			}
			check(t, c.edit(t.Context(), ours, func(img *rbd.Image) error {
				buf := make([]byte, 4)
				_, err := img.ReadAt(buf, 9<<20)
				if string(buf) != "data" {
					t.Errorf("it reads %q", buf)
				}
				_, writeErr := img.WriteAt([]byte("mine"), 9<<20+2)
				return errors.Join(err, writeErr)
			}))
			check(t, c.view(t.Context(), ours, func(img *rbd.Image) error {
				buf := make([]byte, 6)
				_, err := img.ReadAt(buf, 9<<20)
				if string(buf) != "damine" {
					t.Errorf("it reads %q", buf)
				}
				return err
			}))
		})
	}
}

// Many clones come to be or none, and nothing of them is left.
func TestCloneMany(t *testing.T) {
	c := open(t)
	src := parentOf(t, c, "clone-parent")
	var all []Name
	for i := range 120 {
		all = append(all, Name{Pool: VMPool, Image: fmt.Sprintf("clone-many-%d", i)})
	}
	objectsOf := func() (names []string) {
		check(t, c.pool(t.Context(), VMPool, func(io *rados.IOContext) error {
			for _, object := range []string{directoryObject, childrenObject} {
				keys, err := io.GetAllOmapValues(object, "", "", 10000)
				check(t, ignore(err, ErrNotFound))
				names = append(names, slices.Sorted(maps.Keys(keys))...)
			}
			return io.ListObjects(func(oid string) { names = append(names, oid) })
		}))
		slices.Sort(names)
		return names
	}
	taken := all[117]
	check(t, c.Clone(t.Context(), src, 0, taken))
	was := objectsOf()
	if err := c.Clone(t.Context(), src, 1<<30, all...); !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), taken.Image) {
		t.Errorf("error is %v", err)
	}
	if diff := cmp.Diff(was, objectsOf()); diff != "" {
		t.Errorf("what is left of it:\n%s", diff)
	}
	check(t, c.RemoveDisk(t.Context(), taken))
	check(t, c.Clone(t.Context(), src, 1<<30, all...))
	known := func() []string {
		t.Helper()
		var children []string
		check(t, c.view(t.Context(), src, func(img *rbd.Image) (err error) {
			children, err = clones(img, src)
			return err
		}))
		slices.Sort(children)
		return children
	}
	var names []string
	for _, n := range all {
		names = append(names, n.String())
	}
	slices.Sort(names)
	if diff := cmp.Diff(names, known()); diff != "" {
		t.Errorf("of the clones librbd knows others:\n%s", diff)
	}
	if err := c.RemoveImage(t.Context(), src); !errors.Is(err, ErrHasClones) {
		t.Errorf("error is %v", err)
	}
	disks, err := c.Disks(t.Context(), VMPool)
	check(t, err)
	if len(disks) < len(all) || !slices.ContainsFunc(disks, func(d Disk) bool {
		return d.Image == taken.Image && d.Size == 1<<30 && d.Parent == src.String() && d.Used == 0 && len(d.Watchers) == 0
	}) {
		t.Errorf("%d disks: %+v", len(disks), disks)
	}
	check(t, parallel(t.Context(), all, func(n Name) error { return c.RemoveDisk(t.Context(), n) }))
	if left := known(); len(left) > 0 {
		t.Errorf("librbd knows clones that are gone: %v", left)
	}
}

// Who clones at the same time, by our way or by librbd's, or removes clones, loses
// nobody's child.
func TestCloneAtOnce(t *testing.T) {
	c := open(t)
	src := parentOf(t, c, "clone-parent")
	other := parentOf(t, c, "clone-parent-2") // whose children are kept beside
	const each = 12
	check(t, parallel(t.Context(), []string{"ours", "others", "librbd", "gone", "elsewhere"}, func(who string) error {
		src := src
		if who == "elsewhere" {
			src = other
		}
		for i := range each {
			n := Name{Pool: VMPool, Image: fmt.Sprintf("clone-%s-%d", who, i)}
			if who != "librbd" {
				if err := c.Clone(t.Context(), src, 1<<30, n); err != nil {
					return err
				}
			} else {
				err := c.fromSnapshot(t.Context(), src, func(_ *rados.IOContext, img *rbd.Image) error {
					return c.pool(t.Context(), VMPool, func(to *rados.IOContext) error { return cloneFrom(img, src, to, n, cloneForm{}) })
				})
				if err != nil {
					return err
				}
			}
			if who == "gone" {
				if err := c.RemoveDisk(t.Context(), n); err != nil {
					return err
				}
			}
		}
		return nil
	}))
	var children []string
	for from, want := range map[Name]int{src: 3 * each, other: each} {
		check(t, c.view(t.Context(), from, func(img *rbd.Image) error {
			known, err := clones(img, from)
			if len(known) != want {
				t.Errorf("of %s librbd knows %d of %d clones: %v", from, len(known), want, known)
			}
			children = append(children, known...)
			return err
		}))
	}
	for _, child := range children {
		check(t, c.RemoveDisk(t.Context(), Name{Pool: VMPool, Image: strings.TrimPrefix(child, VMPool+"/")}))
	}
}

// Whatever is not plain is librbd's to clone: here, a pool that has settings of its own.
func TestCloneNotPlain(t *testing.T) {
	c := open(t)
	src := parentOf(t, c, "clone-parent")
	check(t, c.pool(t.Context(), VMPool, func(to *rados.IOContext) error {
		check(t, rbd.SetPoolMetadata(to, "conf_rbd_cache", "true"))
		t.Cleanup(func() {
			check(t, c.pool(context.Background(), VMPool, func(to *rados.IOContext) error { return rbd.RemovePoolMetadata(to, "conf_rbd_cache") }))
		})
		plain, err := c.plainPool(to)
		if plain {
			t.Error("the pool is taken for a plain one")
		}
		return err
	}))
	n := Name{Pool: VMPool, Image: "clone-ordinary"}
	check(t, c.Clone(t.Context(), src, 1<<30, n))
	if size, err := c.Size(t.Context(), n); err != nil || size != 1<<30 {
		t.Errorf("it has %d bytes, %v", size, err)
	}
	check(t, c.RemoveDisk(t.Context(), n))
}

// What a list says of an image is what librbd says of it.
func TestListAsLibrbd(t *testing.T) {
	c := open(t)
	src := parentOf(t, c, "clone-parent")
	n := Name{Pool: VMPool, Image: "clone-listed"}
	check(t, c.Clone(t.Context(), src, 50<<20+512, n))
	t.Cleanup(func() { check(t, c.RemoveDisk(context.Background(), n)) })
	compare := func() {
		t.Helper()
		got, err := c.Disk(t.Context(), n)
		check(t, err)
		want := Disk{Pool: n.Pool, Image: n.Image}
		check(t, c.view(t.Context(), n, func(img *rbd.Image) error {
			size, err := img.GetSize()
			check(t, err)
			want.Size = int64(size)
			from, err := parent(img, n)
			check(t, err)
			want.Parent = from.String()
			want.Used, err = used(img, n)
			check(t, err)
			want.Watchers, err = watchers(img, n)
			return err
		}))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("librbd differs:\n%s", diff)
		}
	}
	compare()
	check(t, c.edit(t.Context(), n, func(img *rbd.Image) error {
		for _, at := range []int64{0, 9 << 20, 50 << 20} { // the last is not whole
			_, err := img.WriteAt([]byte("data"), at)
			check(t, err)
		}
		compare() // while it is open, and locked
		return nil
	}))
	compare()
	snap := n
	snap.Snap = "listed"
	check(t, c.CreateSnapshot(t.Context(), snap))
	compare()
	check(t, c.edit(t.Context(), n, func(img *rbd.Image) error {
		_, err := img.Discard(0, 8<<20)
		_, writeErr := img.WriteAt([]byte("more"), 30<<20)
		return errors.Join(err, writeErr)
	}))
	compare()
	check(t, c.RemoveSnapshot(t.Context(), snap))
	check(t, c.edit(t.Context(), n, func(img *rbd.Image) error {
		return img.UpdateFeatures(rbd.FeatureObjectMap|rbd.FeatureFastDiff, false)
	}))
	compare()
}
