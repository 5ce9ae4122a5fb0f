// Clones without librbd. It makes a clone in some thirty operations, half of which
// read what the one before has read, and grows it in forty more, for it opens it as
// anybody's. A clone that nobody knows of yet needs nine, four of which serve any
// number of clones at once.
//
// The objects and their order are librbd's, so that a clone that is cut off is one
// that half.go knows. Whatever is not plain is left to librbd.
//
// Source: librbd, image/CreateRequest, image/CloneRequest; Ceph's cls_rbd.

package disk

/*
#include <rados/librados.h>
*/
import "C"

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

const (
	childrenObject = "rbd_children"
	infoObject     = "rbd_info"
)

// infoValidated is what librbd leaves in a pool's info once it has seen that images
// can be in it.
const infoValidated = "overwrite validated"

// plainFeatures are those whose images consist of header, object map and data.
const plainFeatures = rbd.FeatureLayering | rbd.FeatureExclusiveLock | rbd.FeatureObjectMap | rbd.FeatureFastDiff | rbd.FeatureDeepFlatten

// plain says whether an image's features are all of those, and it can be cloned.
func plain(features uint64) bool {
	return features&rbd.FeatureLayering != 0 && features&^plainFeatures == 0
}

// mimic is the number of the release from which on clones need no protected snapshot,
// and are kept elsewhere.
const mimic = 13

// maxObjects is how many an object map may have. Source: cls_rbd, MAX_OBJECT_MAP_OBJECT_COUNT.
const maxObjects = 256_000_000

// protected is a snapshot's status. Source: cls_rbd, RBD_PROTECTION_STATUS_PROTECTED.
const protected = 2

// origin is a snapshot as its clones' headers need it.
type origin struct {
	name     Name
	pool     int64
	id       string
	snap     uint64
	size     uint64 // bytes
	order    uint8
	features uint64
	meta     map[string]string
}

// plain reads what clones of an open snapshot would have. It is nil if they are not for
// us to make.
func (c *Cluster) plain(img *rbd.Image, src Name, from, to *rados.IOContext) (*origin, error) {
	o := &origin{name: src, pool: from.GetPoolID()}
	ok, err := c.plainPool(to)
	if !ok || err != nil {
		return nil, err
	}
	if o.features, err = img.GetFeatures(); err != nil {
		return nil, wrap("read features of", src.String(), err)
	}
	if !plain(o.features) {
		return nil, nil
	}
	if o.id, err = img.GetId(); err != nil {
		return nil, wrap("read id of", src.String(), err)
	}
	if o.snap, err = img.GetSnapID(src.Snap); err != nil {
		return nil, wrap("read id of", src.String(), err)
	}
	info, err := img.Stat()
	if err != nil {
		return nil, wrap("inspect", src.String(), err)
	}
	o.size, o.order = info.Size, uint8(info.Order)
	if o.meta, err = img.ListMetadata(); err != nil {
		return nil, wrap("read metadata of", src.String(), err)
	}
	return o, nil
}

// plainPool says whether an image in a pool is made as images are made by default.
func (c *Cluster) plainPool(io *rados.IOContext) (bool, error) {
	for option, plain := range map[string][]string{
		"rbd_default_data_pool": {""}, "rbd_default_clone_format": {"auto", "1"},
	} {
		if has, err := c.conn.GetConfigOption(option); err == nil && !slices.Contains(plain, has) {
			return false, nil
		}
	}
	var least, required C.int8_t
	cluster := C.rados_ioctx_get_cluster(C.rados_ioctx_t(io.Pointer()))
	if C.rados_get_min_compatible_client(cluster, &least, &required) != 0 || max(least, required) >= mimic {
		return false, nil
	}
	op := rados.CreateReadOp()
	defer op.Release()
	text := make([]byte, len(infoValidated))
	read := op.Read(0, text)
	settings := op.Exec("rbd", "metadata_list", binary.LittleEndian.AppendUint64(encodeStrings(""), 1))
	if err := op.Operate(io, infoObject, rados.OperationNoFlag); err != nil {
		return false, ignore(wrap("inspect", "pool", err), ErrNotFound)
	}
	out, err := settings.Bytes()
	if err != nil || len(out) < 4 || binary.LittleEndian.Uint32(out) != 0 {
		return false, nil
	}
	return read.BytesRead == int64(len(text)) && string(text) == infoValidated, nil
}

// objects is how many objects an image has.
func objects(size uint64, order uint8) uint64 { return (size + 1<<order - 1) >> order }

// fresh is a clone that is being made.
type fresh struct {
	Name
	id     string
	listed bool // in the pool's directory, by us
	named  bool // by us
}

// clone makes all of dst, of size bytes, or none of them.
func (o *origin) clone(ctx context.Context, c *Cluster, from, to *rados.IOContext, size uint64, dst []Name) (err error) {
	all := make([]*fresh, len(dst))
	for i, n := range dst {
		all[i] = &fresh{Name: n, id: c.newImageID()}
	}
	defer func() {
		if err != nil {
			err = takeBack(to, all, err)
		}
	}()
	for batch := range slices.Chunk(all, 100) {
		if err := enlist(to, batch); err != nil {
			return err
		}
	}
	if err := parallel(ctx, all, func(f *fresh) error { return o.make(to, f, size) }); err != nil {
		return err
	}
	if err := o.adopt(ctx, to, all); err != nil {
		return err
	}
	return o.stillProtected(from)
}

// newImageID is one that no other client makes: as librbd's it begins with this one's
// number.
func (c *Cluster) newImageID() string {
	id := fmt.Sprintf("%x%x", c.conn.GetInstanceID(), rand.Uint32())
	return id[max(0, len(id)-maxImageID):]
}

// maxImageID is how long an image's id may be. Source: rbd_types.h, RBD_MAX_IMAGE_ID_LENGTH.
const maxImageID = 14

// enlist puts clones into their pool's directory. The call is cls_rbd's dir_add_image.
func enlist(io *rados.IOContext, all []*fresh) error {
	op := rados.CreateWriteOp()
	defer op.Release()
	for _, f := range all {
		op.Exec("rbd", "dir_add_image", encodeStrings(f.Image, f.id))
	}
	err := op.Operate(io, directoryObject, rados.OperationNoFlag)
	if is(err, ErrExists) {
		for _, f := range all {
			if id, listErr := listedID(io, f.Name); listErr == nil && id != "" {
				return wrap("create", f.String(), err)
			}
		}
	}
	if err != nil {
		return wrap("create", all[0].String(), err)
	}
	for _, f := range all {
		f.listed = true
	}
	return nil
}

// make makes a clone, which its parent has not heard of yet.
func (o *origin) make(io *rados.IOContext, f *fresh, size uint64) error {
	if _, err := io.Stat(f.Image + ".rbd"); !is(err, rados.ErrNotFound) { // an image of the first format
		if err == nil {
			err = rados.ErrObjectExists
		}
		return wrap("create", f.String(), err)
	}
	write := func(object string, fill func(op *rados.WriteOp)) error {
		op := rados.CreateWriteOp()
		defer op.Release()
		fill(op)
		return wrap("create", f.String(), op.Operate(io, object, rados.OperationNoFlag))
	}
	err := write("rbd_id."+f.Image, func(op *rados.WriteOp) {
		op.Create(rados.CreateExclusive)
		op.Exec("rbd", "set_id", encodeStrings(f.id))
	})
	if err != nil {
		return err
	}
	f.named = true
	header := "rbd_header." + f.id
	err = write(header, func(op *rados.WriteOp) {
		op.Create(rados.CreateExclusive)
		op.Exec("rbd", "create", o.header(f.id, size))
	})
	if err == nil && o.features&rbd.FeatureObjectMap != 0 {
		err = write("rbd_object_map."+f.id, func(op *rados.WriteOp) {
			none := append(binary.LittleEndian.AppendUint64(nil, objects(size, o.order)), 0) // of them exists
			op.Exec("rbd", "object_map_resize", none)
		})
	}
	if err != nil {
		return err
	}
	return write(header, func(op *rados.WriteOp) { // by itself: the class does not see what the same operation wrote
		op.Exec("rbd", "set_parent", binary.LittleEndian.AppendUint64(o.spec(), o.size))
		if len(o.meta) > 0 {
			op.Exec("rbd", "metadata_set", encodeMap(o.meta))
		}
	})
}

// header is what cls_rbd's create takes: size, order, features, the prefix of the
// objects' names, and -1, which is no pool of their own.
func (o *origin) header(id string, size uint64) []byte {
	in := append(binary.LittleEndian.AppendUint64(nil, size), o.order)
	in = binary.LittleEndian.AppendUint64(in, o.features)
	in = append(in, encodeStrings("rbd_data."+id)...)
	return binary.LittleEndian.AppendUint64(in, ^uint64(0))
}

// spec names the snapshot as cls_rbd wants it: pool, image, snapshot.
func (o *origin) spec() []byte {
	in := append(binary.LittleEndian.AppendUint64(nil, uint64(o.pool)), encodeStrings(o.id)...)
	return binary.LittleEndian.AppendUint64(in, o.snap)
}

// adopt writes down the snapshot's children where its unprotecting looks for them. All
// of a snapshot's are one value, a set of ids: cls_rbd's add_child puts one into it, and
// does not see what another in the same operation has put there. So it is read, by the
// class, and replaced if it is still that. go-ceph cannot read it: the key has zeros in it.
func (o *origin) adopt(ctx context.Context, io *rados.IOContext, all []*fresh) error {
	key := string(o.spec())
	for {
		has, err := exec(io, childrenObject, "get_children", o.spec())
		if ignore(err, ErrNotFound) != nil {
			return wrap("clone", o.name.String(), err)
		}
		ids, err := decodeStrings(has)
		if err != nil {
			return wrap("clone", o.name.String(), err)
		}
		for _, f := range all {
			ids = append(ids, f.id)
		}
		slices.Sort(ids)
		set := append(binary.LittleEndian.AppendUint32(nil, uint32(len(ids))), encodeStrings(ids...)...)
		change := omapChange{expect: map[string][]byte{key: has}, set: map[string][]byte{key: set}}
		done, err := change.apply(io, childrenObject)
		if err == nil {
			err = ctx.Err()
		}
		if done || err != nil {
			return wrap("clone", o.name.String(), err)
		}
	}
}

// stillProtected asks after the children are known: who unprotects the snapshot from
// here on finds them. The call is cls_rbd's get_protection_status.
func (o *origin) stillProtected(io *rados.IOContext) error {
	out, err := exec(io, "rbd_header."+o.id, "get_protection_status", binary.LittleEndian.AppendUint64(nil, o.snap))
	if err != nil {
		return wrap("clone", o.name.String(), err)
	}
	if len(out) < 1 || out[0] != protected {
		return &Error{Op: "clone", Object: o.name.String(), Kind: ErrNotProtected, Reason: "the snapshot is not protected"}
	}
	return nil
}

// takeBack removes what was made of clones.
func takeBack(io *rados.IOContext, all []*fresh, cause error) error {
	var mu sync.Mutex
	_ = parallel(context.Background(), all, func(f *fresh) error {
		var err error
		switch {
		case f.named:
			err = removeIn(io, f.Name)
		case f.listed:
			err = call(io, directoryObject, "dir_remove_image", f.Image, f.id)
		}
		if err = ignore(err, ErrNotFound); err != nil {
			mu.Lock()
			defer mu.Unlock()
			cause = fmt.Errorf("%w (and %s is left: %w)", cause, f, err)
		}
		return nil
	})
	return cause
}

// encodeMap encodes names and values as Ceph does.
func encodeMap(m map[string]string) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(m)))
	for key, value := range m {
		b = append(b, encodeStrings(key, value)...)
	}
	return b
}
