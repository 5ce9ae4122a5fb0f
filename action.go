// Actions: what takes a step back, or finishes it, as data. They can be written
// into the journal before the step is begun, and done by whoever finds them there.

package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/secret"
	"libvirt.org/go/libvirt"
)

// verb is what an action does. Each takes "already so" for done, so that an action
// can be done any number of times.
type verb string

const (
	actRemove       verb = "remove"           // Image, with its own snapshots
	actRemoveVolume verb = "remove volume"    // Image, that no machine has
	actRemoveSnap   verb = "remove snap"      // Image, POOL/IMAGE@SNAP
	actRename       verb = "rename"           // Image to To, unless it is called so
	actRollBack     verb = "roll back"        // Image to its snapshot
	actRelease      verb = "release"          // Image, from VM
	actUndefine     verb = "undefine"         // VM
	actPowerOff     verb = "power off"        // VM
	actUnplug       verb = "unplug"           // Image, from VM
	actRemoveDisk   verb = "remove disk"      // Image, a machine's own, whatever is left on it
	actGrow         verb = "grow"             // Image, of VM, to Size
	actRescue       verb = "rescue"           // VM, with Image in place of To
	actUnrescue     verb = "unrescue"         // VM, from Image
	actLimit        verb = "limit"            // To, a target of VM, to QoS
	actRemoveImage  verb = "remove image"     // Image, with its snapshot to clone from
	actPowerOn      verb = "power on"         // VM
	actRestart      verb = "restart"          // VM, which was off, or was asked to be
	actThaw         verb = "thaw"             // VM
	actRemoveSecret verb = "remove secret"    // Secret, unless something needs it
	actTake         verb = "take"             // VM, for Host
	actMove         verb = "move"             // Image, a volume of VM, to Host
	actDefine       verb = "define"           // VM, from its record
	actStart        verb = "start"            // VM, from its record
	actRecord       verb = "record"           // VM and its volumes, as they are on Host
	actSettle       verb = "settle"           // VM, of which it is not known where it is
	actTrash        verb = "trash"            // Image, to be kept until Until
	actRestore      verb = "restore"          // Image, in the trash as ID
	actDropTrashed  verb = "drop snaps of"    // Image, in the trash as ID
	actPurge        verb = "purge"            // Image, in the trash as ID
	actResize       verb = "resize"           // Image, a volume of From bytes, to Size
	actFlatten      verb = "flatten"          // Image, if that was as good as done
	actDrop         verb = "drop"             // Image, what the volume To hung on
	actLoosen       verb = "unprotect"        // Image, a snapshot, unless it has clones
	actBringBack    verb = "bring back"       // Image, ID in the trash, unless there is one
	actPutInCeph    verb = "define in Ceph"   // VM, whose disk at To is in Image
	actPutInFile    verb = "define in a file" // VM, whose disk at To is in File
	actAbortCopy    verb = "abort copy of"    // To, a target of VM
	actResume       verb = "resume"           // VM
	actSettleAdopt  verb = "settle adoption"  // VM, whose disk at To is in File or already in Image
	actSettleEject  verb = "settle ejection"  // VM, whose disk at To is in Image or already in File
	actForget       verb = "forget file"      // File, where VM had its disk at To
	actRemoveFile   verb = "remove file"      // File
	actPutInImage   verb = "define in image"  // VM and its record, whose disk at To is in Image
	actSettleMove   verb = "settle moving"    // VM, whose disk at To is in Was or already in Image
	actLetGo        verb = "let go of"        // Image, which Client held to copy it
	actDropMoved    verb = "remove moved"     // Image, which VM has no more; a volume is given back
	actFollow       verb = "keep record of"   // VM, unless its disks are all in another cluster
	actEnd          verb = "end work on"      // VM, that was interrupted
	actTidyTrash    verb = "tidy trashed"     // Image, ID in the trash: the snapshots of backups on it
)

// action is a verb and what it is done to.
type action struct {
	Verb   verb   `json:"verb"`
	Image  string `json:"image,omitempty"` // POOL/IMAGE[@SNAP]
	To     string `json:"to,omitempty"`
	VM     string `json:"vm,omitempty"` // UUID
	Name   string `json:"name,omitempty"`
	Secret string `json:"secret,omitempty"`
	Backup string `json:"backup,omitempty"` // its ID
	// Store says that Image is where backups are, and the user's who writes them.
	Store bool `json:"store,omitempty"`
	// While is an image that there must be; else it is done already.
	While string `json:"while,omitempty"`
	Size  int64  `json:"size,omitempty"` // bytes
	From  int64  `json:"from,omitempty"` // bytes
	// ID is what RBD calls an image in the trash, where two can have one name.
	ID    string      `json:"id,omitempty"`
	Until time.Time   `json:"until,omitzero"` // it is kept in the trash
	QoS   *domain.QoS `json:"qos,omitempty"`
	// Host is whose libvirt it takes, and URI how that is reached from elsewhere.
	Host string `json:"host,omitempty"`
	URI  string `json:"uri,omitempty"`
	// ToURI is how the libvirt of To is reached, if that is a host.
	ToURI string `json:"to_uri,omitempty"`
	TLS   bool   `json:"tls,omitempty"` // memory is encrypted on its way there
	Was   string `json:"was,omitempty"` // POOL/IMAGE, before it was moved to Image
	// Client is the address of a process of ours.
	Client string `json:"client,omitempty"`
	// In is the cluster of Image if that is another than the journal's, Also one in which
	// VM may have a record, too, should its host be gone.
	In   *cephPlace `json:"in,omitempty"`
	Also *cephPlace `json:"also,omitempty"`
	// File is on Host, as QEMU reads it in Format. If it is to be kept, it was there before.
	File   string `json:"file,omitempty"`
	Format string `json:"format,omitempty"`
	Keep   bool   `json:"keep,omitempty"`
	Paused bool   `json:"paused,omitempty"` // VM was before
}

// String is for people: "remove vms/0562…_disk".
func (a action) String() string {
	s := string(a.Verb)
	for _, part := range []string{a.Backup, a.Image, a.Name, a.Secret, a.File} {
		if part != "" {
			s += " " + part
		}
	}
	if a.To != "" {
		s += " to " + a.To
	}
	if a.Host != "" {
		s += " on " + a.Host
	}
	return s
}

// trashed is the entry of the trash that an action is about.
func (a action) trashed(n disk.Name) disk.Trashed {
	return disk.Trashed{ID: a.ID, Pool: n.Pool, Image: n.Image}
}

// act does an action. Those that need a host's libvirt use on's if it is that
// host's, else they connect to it.
func (h *Host) act(ctx context.Context, on *session, a action) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if a.In != nil && a.Verb != actSettleMove {
		return h.actThere(ctx, on, a)
	}
	var n disk.Name
	if a.Image != "" {
		var err error
		if n, err = disk.ParseName(a.Image, ""); err != nil {
			return err
		}
	}
	cluster := on.cluster
	if a.Store {
		var err error
		if cluster, err = h.backups(ctx); err != nil {
			return err
		}
		if known, err := h.actOnBackup(ctx, cluster, n, a); known {
			return err
		}
	}
	switch a.Verb {
	case actRemove:
		return gone(cluster.RemoveDisk(ctx, n))
	case actRemoveVolume:
		if err := on.cluster.WaitUnused(ctx, n); gone(err) != nil { // who removed it may have died just now
			return err
		}
		return gone(on.cluster.RemoveVolume(ctx, n))
	case actRemoveSnap:
		return gone(cluster.RemoveSnapshot(ctx, n))
	case actRemoveDisk:
		return on.cluster.RemoveMachineDisk(ctx, n)
	case actRemoveImage:
		return dropImage(ctx, on.cluster, n)
	case actTrash:
		return on.cluster.FinishTrash(ctx, n, max(0, time.Until(a.Until)))
	case actRestore:
		err := on.cluster.RestoreTrashed(ctx, a.trashed(n))
		if errors.Is(err, disk.ErrExists) { // somebody took the name: it stays where it is
			return nil
		}
		return gone(err)
	case actDropTrashed:
		return gone(on.cluster.DropTrashedSnapshots(ctx, a.trashed(n), nil))
	case actPurge:
		return gone(on.cluster.PurgeTrash(ctx, a.trashed(n), true))
	case actRename:
		return h.rename(ctx, on.cluster, n, a)
	case actRollBack:
		return h.rollBack(ctx, on.cluster, n)
	case actRelease:
		return on.cluster.Release(ctx, n, a.VM)
	case actLetGo:
		return h.letGo(ctx, on, n, a.Client)
	case actDropMoved:
		return dropMoved(ctx, on.cluster, n, a.VM)
	case actMove:
		return on.cluster.Moved(ctx, n, a.VM, a.Host)
	case actTake:
		return h.take(ctx, on, a)
	case actResize:
		return h.finishResize(ctx, on.cluster, n, a)
	case actFlatten:
		return finishFlatten(ctx, on.cluster, n)
	case actDrop:
		return drop(ctx, on.cluster, n, a)
	case actLoosen:
		return gone(cluster.Loosen(ctx, n))
	case actBringBack:
		return bringBack(ctx, on.cluster, n, a.ID)
	case actEnd:
		return h.endWork(ctx, on, a.VM)
	case actTidyTrash:
		return tidyTrashed(ctx, on.cluster, n, a.ID)
	}
	if a.Verb == actThaw {
		var err error
		if a, err = h.wherever(ctx, on, a); err != nil {
			return err
		}
	}
	return h.onHost(ctx, on, a, func(conn *libvirt.Connect) error {
		switch a.Verb {
		case actUndefine:
			return domain.Undefine(ctx, conn, a.VM)
		case actPowerOff:
			return domain.Destroy(ctx, conn, a.VM)
		case actGrow:
			return h.grow(ctx, on, conn, n, a)
		case actRescue:
			return h.enterRescue(ctx, on, conn, n, a)
		case actUnrescue:
			return h.leaveRescue(ctx, on, conn, n, a)
		case actLimit:
			return domain.SetQoS(ctx, conn, a.VM, a.To, *a.QoS)
		case actThaw:
			return domain.Thaw(ctx, conn, a.VM)
		case actPowerOn:
			return domain.Start(ctx, conn, a.VM)
		case actRestart:
			return h.restart(ctx, conn, a.VM)
		case actPutInCeph:
			return h.recorded(ctx, on, conn, a, h.putInCeph(ctx, on, conn, n, a, domain.Adopt))
		case actPutInImage:
			return h.recorded(ctx, on, conn, a, h.putInCeph(ctx, on, conn, n, a, domain.Move))
		case actPutInFile:
			return h.recorded(ctx, on, conn, a, putInFile(ctx, conn, a))
		case actAbortCopy:
			return h.abortCopy(ctx, on, conn, n, a)
		case actResume:
			return resume(ctx, conn, a.VM)
		case actSettleAdopt, actSettleEject, actSettleMove:
			return h.settleCrossing(ctx, on, conn, a)
		case actForget:
			return forgetFile(ctx, conn, a)
		case actRemoveFile:
			return removeFile(a)
		case actFollow:
			return h.follow(ctx, &session{cluster: on.cluster, conn: conn, host: a.Host}, a.VM)
		case actSettle:
			return h.settleMove(ctx, on, conn, a)
		case actRecord:
			return h.recordThere(ctx, on.cluster, conn, a)
		case actDefine:
			return h.defineRecorded(ctx, on, conn, a)
		case actStart:
			return h.startRecorded(ctx, on, conn, a)
		case actUnplug:
			ctx, cancel := h.guest(ctx)
			defer cancel()
			err := domain.Detach(ctx, conn, a.VM, n.Pool, n.Image)
			if errors.Is(err, domain.ErrNotFound) {
				return nil
			}
			return err
		case actRemoveSecret:
			return h.removeUnusedSecret(ctx, on.cluster, conn, a)
		}
		return fmt.Errorf("%q is not known to this version of vmdisk", a.Verb)
	})
}

// forward is a step that only goes forward: one action.
func (h *Host) forward(on *session, name, detail string, a action) step {
	return step{name: name, detail: says(detail), on: []action{a},
		do: func(ctx context.Context) error { return h.act(ctx, on, a) }}
}

// onHost runs f with the libvirt of an action's host.
func (h *Host) onHost(ctx context.Context, on *session, a action, f func(*libvirt.Connect) error) error {
	if err := on.openHost(ctx, h); err != nil {
		return err
	}
	if a.Host == on.host {
		return f(on.conn)
	}
	if a.URI == "" {
		return fmt.Errorf("%s takes the libvirt of %s; there:  vmdisk repair", a, a.Host)
	}
	conn, err := domain.Connect(ctx, a.URI, h.cfg.Timeout)
	if err != nil {
		return err
	}
	defer func() { _, _ = domain.Close(context.WithoutCancel(ctx), conn) }()
	return f(conn)
}

// removeUnusedSecret removes a secret that a workflow made, unless a machine of the
// host needs it, or another workflow there may be about to.
func (h *Host) removeUnusedSecret(ctx context.Context, cluster *disk.Cluster, conn *libvirt.Connect, a action) error {
	used, err := domain.UsesSecret(ctx, conn, a.Secret)
	if err != nil || used {
		return err
	}
	open, err := cluster.Operations(ctx, h.cfg.VMPool)
	if err != nil {
		return err
	}
	others := 0
	for _, o := range open {
		if o.Holder.Host == a.Host {
			others++
		}
	}
	if others > 1 { // one is the workflow itself
		return nil
	}
	return secret.Remove(conn, a.Secret)
}
