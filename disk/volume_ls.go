// Listing volumes by their headers: two reads each, where opening an image takes a
// dozen and a watch.

package disk

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/ceph/go-ceph/rados"
)

// Volumes describes every volume of a pool, by name.
//
// Similar to: rbd ls -l.
func (c *Cluster) Volumes(ctx context.Context, pool string) ([]Volume, error) {
	var all []Volume
	err := c.pool(ctx, pool, func(io *rados.IOContext) error {
		ids, err := directory(io, pool)
		if err != nil {
			return err
		}
		var names []string
		for name := range ids {
			if strings.HasPrefix(name, volumePrefix) {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		known := parents{c: c, names: map[parentKey]func() (string, error){}}
		all, err = each(ctx, names, func(name string) (Volume, error) {
			return listed(ctx, io, Name{Pool: pool, Image: name}, ids[name], &known)
		})
		return err
	})
	return all, err
}

// listed describes one volume by its header and its owner's record.
func listed(ctx context.Context, io *rados.IOContext, n Name, id string, known *parents) (Volume, error) {
	v := newVolume(n)
	size, from, err := readHeader(io, n, id)
	if err != nil {
		return v, err
	}
	v.Size = size
	if from != (parentKey{}) {
		if v.Parent, err = known.name(ctx, n, from); err != nil {
			return v, err
		}
	}
	var owner Owner
	_, err = readOwner(io, n, &owner)
	if err == nil {
		v.Attached = &owner
	}
	return v, ignore(err, ErrNotFound)
}

// parentKey is a parent as a header has it.
type parentKey struct {
	pool  int64
	image string
	snap  uint64
}

// parents are the names of those that were met: most clones have theirs in common.
type parents struct {
	c     *Cluster
	mu    sync.Mutex
	names map[parentKey]func() (string, error)
}

// name asks librbd for the first clone's, and nobody for the others'.
func (p *parents) name(ctx context.Context, child Name, key parentKey) (string, error) {
	p.mu.Lock()
	ask := p.names[key]
	if ask == nil {
		ask = sync.OnceValues(func() (string, error) {
			from, err := p.c.Parent(ctx, child)
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

// readHeader asks an image's header for size and parent, in one read. The calls
// are cls_rbd's get_size and get_parent.
func readHeader(io *rados.IOContext, n Name, id string) (size int64, from parentKey, err error) {
	snap := binary.LittleEndian.AppendUint64(nil, noSnap)
	op := rados.CreateReadOp()
	defer op.Release()
	sizeStep, parentStep := op.Exec("rbd", "get_size", snap), op.Exec("rbd", "get_parent", snap)
	if err := op.Operate(io, "rbd_header."+id, rados.OperationNoFlag); err != nil {
		return 0, from, wrap("read header of", n.String(), err)
	}
	out, err := sizeStep.Bytes()
	if err == nil && len(out) < 9 { // the order, one byte, and the size
		err = errShortAnswer
	}
	if err != nil {
		return 0, from, wrap("read size of", n.String(), err)
	}
	size = int64(binary.LittleEndian.Uint64(out[1:]))
	out, err = parentStep.Bytes()
	if err == nil {
		from, err = decodeParent(out)
	}
	return size, from, wrap("read parent of", n.String(), err)
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
