// What is on a disk in the cluster, read without a guest: the other half of the
// oracle's proof.

package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// Blocks reads the oracle's blocks from an RBD image, "POOL/IMAGE" or
// "POOL/IMAGE@SNAP". What a running guest still has in its cache is not there
// yet. It blocks for as long as reading the image takes, usually a second.
func (l *Lab) Blocks(ctx context.Context, image string) (Blocks, error) {
	// rbd export makes its file itself and refuses one that exists.
	dir, err := os.MkdirTemp(l.Dir, "export-")
	if err != nil {
		return Blocks{}, fmt.Errorf("lab: %w", err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "raw")
	if _, err := l.client(ctx, nil, "rbd", "cinder", "export", "--no-progress", image, path); err != nil {
		return Blocks{}, fmt.Errorf("lab: reading %s: %w", image, err)
	}
	raw, err := os.Open(path)
	if err != nil {
		return Blocks{}, fmt.Errorf("lab: %w", err)
	}
	defer raw.Close()
	info, err := raw.Stat()
	if err != nil {
		return Blocks{}, fmt.Errorf("lab: %w", err)
	}
	return OracleBlocks(raw, info.Size())
}
