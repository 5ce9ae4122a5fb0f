package disk

import (
	"context"
	"fmt"
	"os"
	osexec "os/exec"
	"testing"

	"github.com/ceph/go-ceph/rbd"
	"github.com/vmdisk/vmdisk/lab"
	"golang.org/x/sync/errgroup"
)

// closesVariable names, in a process that does only this, the image to open and close.
const closesVariable = "VMDISK_TEST_CLOSES"

// TestClosedAtOnce closes images as soon as they are open, in a process whose memory is
// spoilt when it is freed: it must not be used any more.
func TestClosedAtOnce(t *testing.T) {
	c := open(t)
	n := Name{Pool: VolumePool, Image: "closed at once"}
	if os.Getenv(closesVariable) == n.Image {
		closeAtOnce(t, c, n)
		return
	}
	parent := parentOf(t, c, "parent of "+n.Image)
	check(t, c.Clone(t.Context(), parent, 20<<20, n))
	t.Cleanup(func() { check(t, c.RemoveDisk(context.Background(), n)) })
	child := osexec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	child.Env = append(os.Environ(), closesVariable+"="+n.Image, lab.EnvDir+"="+testLab.Dir, "MALLOC_PERTURB_=165")
	if out, err := child.CombinedOutput(); err != nil {
		t.Errorf("the process that closes images: %v\n%s", err, out)
	}
}

func closeAtOnce(t *testing.T, c *Cluster, n Name) {
	var all errgroup.Group
	for range 8 {
		all.Go(func() error {
			for i := range 60 {
				if err := c.view(t.Context(), n, func(*rbd.Image) error { return nil }); err != nil {
					return fmt.Errorf("opening %d: %w", i, err)
				}
			}
			return nil
		})
	}
	check(t, all.Wait())
}
