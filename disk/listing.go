// Listing images without opening them: one read of the header and one of the object map
// each, where opening an image takes a dozen, and looking at its use one more for each
// of its objects in the worst case.

package disk

import (
	"context"
	"encoding/binary"
	"errors"
	"math/bits"
	"slices"
	"sync"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// listWorkers is how many images are looked at at once. Each waits for two small reads,
// most of the time for its turn in an OSD.
const listWorkers = 64

// header is what one read of an image's header gives.
type header struct {
	size     int64
	order    uint8 // its objects have 2^order bytes
	features uint64
	flags    uint64
	from     parentKey // zero if it has none
	watchers []Watcher
}

// readHeader asks for it. The calls are cls_rbd's get_size, get_parent, get_features and
// get_flags.
func readHeader(io *rados.IOContext, n Name, id string) (h header, err error) {
	out, by, err := ask(io, "rbd_header."+id, binary.LittleEndian.AppendUint64(nil, noSnap), "get_size", "get_parent", "get_features", "get_flags")
	if err != nil {
		return h, wrap("read header of", n.String(), err)
	}
	size, parent, features, flags := out[0], out[1], out[2], out[3]
	if len(size) < 9 || len(features) < 8 || len(flags) < 8 {
		return h, wrap("read header of", n.String(), errShortAnswer)
	}
	h = header{size: int64(binary.LittleEndian.Uint64(size[1:])), order: size[0], watchers: by,
		features: binary.LittleEndian.Uint64(features), flags: binary.LittleEndian.Uint64(flags)}
	h.from, err = decodeParent(parent)
	return h, wrap("read parent of", n.String(), err)
}

// parentKey is a parent as a header has it.
type parentKey struct {
	pool  int64
	image string
	snap  uint64
}

// decodeParent reads pool, image id, snapshot id; the pool is -1 where there is no
// parent.
func decodeParent(out []byte) (parentKey, error) {
	if len(out) < 8 {
		return parentKey{}, errShortAnswer
	}
	key := parentKey{pool: int64(binary.LittleEndian.Uint64(out))}
	if key.pool < 0 {
		return parentKey{}, nil
	}
	image, rest, err := decodeString(out[8:])
	if err != nil || len(rest) < 8 {
		return parentKey{}, errShortAnswer
	}
	key.image, key.snap = image, binary.LittleEndian.Uint64(rest)
	return key, nil
}

var errShortAnswer = errors.New("short answer from the rbd class")

// list describes the images of a pool that keep says yes to, by name. What goes
// meanwhile is left out.
func list[T any](ctx context.Context, c *Cluster, pool string, keep func(name string) bool, describe func(io *rados.IOContext, d Disk) (T, error)) ([]T, error) {
	var all []T
	err := c.pool(ctx, pool, func(io *rados.IOContext) error {
		ids, err := directory(io, pool)
		if err != nil {
			return err
		}
		var names []string
		for name := range ids {
			if keep(name) {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		known := newParents(c)
		all, err = eachOf(ctx, listWorkers, names, func(name string) (one T, err error) {
			d, err := c.listed(ctx, io, Name{Pool: pool, Image: name}, ids[name], known)
			if err != nil {
				return one, err
			}
			return describe(io, d)
		})
		return err
	})
	return all, err
}

// described describes one image.
func (c *Cluster) described(ctx context.Context, io *rados.IOContext, n Name, known *parents) (Disk, error) {
	id, err := imageID(io, n)
	if err != nil {
		return Disk{}, translate("open", n.String(), err)
	}
	return c.listed(ctx, io, n, id, known)
}

// listed describes one image whose id is known.
func (c *Cluster) listed(ctx context.Context, io *rados.IOContext, n Name, id string, known *parents) (Disk, error) {
	h, err := readHeader(io, n, id)
	if err != nil {
		return Disk{}, err
	}
	d := Disk{Pool: n.Pool, Image: n.Image, Size: h.size, Watchers: h.watchers}
	if h.from != (parentKey{}) {
		if d.Parent, err = known.name(ctx, n, h.from); err != nil {
			return d, err
		}
	}
	var ok bool
	if d.Used, ok, err = h.used(io, n, id); err != nil || ok {
		return d, err
	}
	err = c.view(ctx, n, func(img *rbd.Image) (err error) {
		d.Used, err = used(img, n)
		return err
	})
	return d, err
}

// used adds up the objects that an image has of its own, by its object map. Without one
// that can be trusted it is not ok.
func (h header) used(io *rados.IOContext, n Name, id string) (total int64, ok bool, err error) {
	if h.features&rbd.FeatureObjectMap == 0 || h.flags&objectMapInvalid != 0 {
		return 0, false, nil
	}
	out, err := exec(io, "rbd_object_map."+id, "object_map_load", nil)
	if is(err, ErrNotFound) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, wrap("read usage of", n.String(), err)
	}
	states, count, err := decodeObjectMap(out)
	if err != nil {
		return 0, false, wrap("read usage of", n.String(), err)
	}
	for _, four := range states {
		total += int64(bits.OnesCount8(four & 0b01010101)) // of a state, which has two bits, the lower says that it is there
	}
	total <<= h.order
	if rest := h.size & (1<<h.order - 1); rest != 0 && count == objects(uint64(h.size), h.order) && stateOf(states, count-1)&1 != 0 {
		total -= 1<<h.order - rest
	}
	return total, true, nil
}

// parents are the names of those that were met: most clones have theirs in common.
type parents struct {
	c     *Cluster
	mu    sync.Mutex
	names map[parentKey]func() (string, error)
}

func newParents(c *Cluster) *parents {
	return &parents{c: c, names: map[parentKey]func() (string, error){}}
}

// name asks for the first clone's, and nobody for the others'.
func (p *parents) name(ctx context.Context, child Name, key parentKey) (string, error) {
	p.mu.Lock()
	ask := p.names[key]
	if ask == nil {
		ask = sync.OnceValues(func() (string, error) {
			if from, err := p.c.nameOf(ctx, key); err == nil {
				return from.String(), nil
			}
			from, err := p.c.Parent(ctx, child) // it is in the trash, or not for us to see: librbd knows more ways
			if err != nil || from.Image == "" {
				return "", err
			}
			return from.String(), nil
		})
		p.names[key] = ask
	}
	p.mu.Unlock()
	return ask()
}

// nameOf is what a snapshot is called that a header names by numbers. The calls are
// cls_rbd's dir_get_name and get_snapshot_name.
func (c *Cluster) nameOf(ctx context.Context, key parentKey) (n Name, err error) {
	if n.Pool, err = c.conn.GetPoolByID(key.pool); err != nil {
		return n, err
	}
	err = c.pool(ctx, n.Pool, func(io *rados.IOContext) error {
		out, err := exec(io, directoryObject, "dir_get_name", encodeStrings(key.image))
		if err == nil {
			n.Image, _, err = decodeString(out)
		}
		if err == nil {
			out, err = exec(io, "rbd_header."+key.image, "get_snapshot_name", binary.LittleEndian.AppendUint64(nil, key.snap))
		}
		if err == nil {
			n.Snap, _, err = decodeString(out)
		}
		return err
	})
	return n, err
}
