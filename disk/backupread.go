// Reading backups: back into a volume, or only to see whether they still are what
// was written.

package disk

import (
	"context"
	"slices"

	"github.com/ceph/go-ceph/rados"
)

// The ways in which a backup can be verified.
const (
	VerifiedBySums   = "checksums" // those that were kept when it was made
	VerifiedBySource = "source"    // the volume's snapshot that it was made from
	VerifiedNot      = "none"      // there is nothing to compare with
)

// Verification is what became of verifying a backup.
type Verification struct {
	ID     string   `json:"id"`
	Volume string   `json:"volume"`
	Method string   `json:"method"`
	Blocks int64    `json:"blocks"` // of 64 KiB, that were compared
	Part   bool     `json:"part"`   // some blocks have nothing to be compared with
	Bad    []Damage `json:"bad"`
}

// sumsOf are a backup's checksums page by page, laid over those of the backup that
// it is the difference to, and so on, and whether what they lack must be zeros. It
// is nil if there are none.
func sumsOf(io *rados.IOContext, all []Backup, b Backup) (want func(int64) (*sumPage, error), whole bool) {
	if b.Sums == sumsNone {
		return nil, false
	}
	chain := []Backup{b}
	for chain[0].Sums == sumsChanged {
		i := slices.IndexFunc(all, func(p Backup) bool { return p.ID == chain[0].Parent })
		if i < 0 || all[i].Sums == sumsNone { // Cinder's: what it changed is not known
			break
		}
		chain = slices.Insert(chain, 0, all[i])
	}
	whole = chain[0].Sums == sumsAll
	return func(page int64) (*sumPage, error) {
		p := new(sumPage)
		for _, link := range chain {
			later := new(sumPage)
			if err := readSums(io, link.ID, page, later); err != nil {
				return nil, err
			}
			p.overlay(later)
			p.cut(page, link.Size)
		}
		return p, nil
	}, whole
}

// RestoreBackup copies a backup into dst, an empty image that is made as large as
// the backup was. Each block is compared with its checksum on the way, if it has
// one; the first that differs is [ErrCorrupt] and names its offset. It returns how
// many bytes it wrote.
//
// Similar to: rbd export-diff piped into rbd import-diff.
func (c *Cluster) RestoreBackup(ctx context.Context, pool string, all []Backup, b Backup, to *Cluster, dst Name,
	progress func(done, total int64)) (written int64, err error) {
	err = c.pool(ctx, pool, func(from *rados.IOContext) error {
		s, err := openBackup(from, pool, b)
		if err != nil {
			return err
		}
		defer s.close()
		s.want, s.all = sumsOf(from, all, b)
		s.bad = func(d Damage) error { return corrupt(b.ID, d) }
		s.progress, s.fresh = progress, true
		err = to.pool(ctx, dst.Pool, func(io *rados.IOContext) error { return fillImage(ctx, s, io, dst) })
		written = s.written
		return err
	})
	return written, err
}

// openBackup is a scan of all that a backup has.
func openBackup(io *rados.IOContext, pool string, b Backup) (*scan, error) {
	s, err := openScan(io, b.at(pool), "")
	if err != nil {
		return nil, err
	}
	if s.todo, err = wholeDiff(s.diff, b.at(pool), "", s.unit); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// VerifyBackup reads a backup again and compares it with its checksums; without
// any, with the snapshot of the volume that it was made from, if source is not nil
// and that is still there. It reads all that the backup holds. Blocks that differ
// are in the result and no error; of more than 1000 those first found are named.
func (c *Cluster) VerifyBackup(ctx context.Context, pool string, all []Backup, b Backup, source *Cluster,
	progress func(done, total int64)) (Verification, error) {
	v := Verification{ID: b.ID, Volume: b.Volume, Method: VerifiedBySums, Bad: []Damage{}}
	err := c.pool(ctx, pool, func(io *rados.IOContext) error {
		s, err := openBackup(io, pool, b)
		if err != nil {
			return err
		}
		defer s.close()
		s.progress = progress
		s.bad = func(d Damage) error {
			if len(v.Bad) < maxDamage {
				v.Bad = append(v.Bad, d)
			}
			return nil
		}
		if s.want, s.all = sumsOf(io, all, b); s.want != nil {
			err = s.run(ctx)
		} else {
			err = compareSource(ctx, s, b, source, &v)
		}
		v.Blocks, v.Part = s.compared, !s.all
		return err
	})
	return v, err
}

// compareSource compares with the volume's snapshot, page by page.
func compareSource(ctx context.Context, s *scan, b Backup, source *Cluster, v *Verification) error {
	v.Method = VerifiedNot
	if source == nil {
		return nil
	}
	n := b.VolumeName()
	n.Snap = b.Source
	err := source.pool(ctx, n.Pool, func(io *rados.IOContext) error {
		other, err := openScan(io, n, "")
		if err != nil {
			return err
		}
		defer other.close()
		if other.todo, err = wholeDiff(other.diff, n, "", other.unit); err != nil {
			return err
		}
		v.Method, s.all = VerifiedBySource, true
		s.want = func(page int64) (*sumPage, error) {
			p := new(sumPage)
			other.keep = func(_ int64, sums *sumPage) error {
				p.overlay(sums)
				return nil
			}
			return p, other.page(ctx, page)
		}
		return s.run(ctx)
	})
	return ignore(err, ErrNotFound)
}
