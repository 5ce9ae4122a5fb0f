// Init: what a cluster and a host need before anything else works, found or made.

package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/secret"
)

// InitOptions say what to make, and where. The zero value is all of it, at the
// places where Ceph and systemd look.
type InitOptions struct {
	// ClusterOnly and HostOnly each leave out the other's part. The cluster's, pools
	// and users, is done once; the host's, all else, on each host.
	ClusterOnly, HostOnly bool
	// DryRun changes nothing: what would be made is [Missing].
	DryRun bool
	// Force also changes what is there and differs.
	Force bool
	// InstantRestore lets client.cinder read the pool of backups, for instant restores.
	InstantRestore bool
	// PGs is how many placement groups a new pool gets; 0 leaves it to the cluster.
	PGs int

	// Users are those whose keyrings this host gets, without "client."; none are all.
	Users []string
	// KeyringDir is the folder for keyrings; "" is /etc/ceph.
	KeyringDir string
	// KeyringOwner owns them, USER[:GROUP] in names or numbers; "" is whoever calls,
	// and leaves those that are there to their owner.
	KeyringOwner string
	// NoLibvirt leaves out what only machines need: the folders for their sockets and
	// logs, and the libvirt secret.
	NoLibvirt bool
	// QEMUOwner owns the folders, USER[:GROUP]; "" is as whom libvirt runs QEMU.
	QEMUOwner string
	// TmpfilesDir is where systemd-tmpfiles is told of the folders; "" is
	// /etc/tmpfiles.d.
	TmpfilesDir string
}

// InitState is what was found, or became, of one thing.
type InitState string

// The states.
const (
	Found   InitState = "found"   // it was there
	Made    InitState = "made"    // it was not
	Changed InitState = "changed" // it was there, and is now as it must be
	Differs InitState = "differs" // it is there, is not as it must be, and was left alone
	Missing InitState = "missing" // it is not there, or not all of it, after a dry run
)

// InitItem is one thing that a cluster or a host needs.
type InitItem struct {
	Kind   string    `json:"kind"` // pool, user, keyring, conf, folder, tmpfiles or secret
	Name   string    `json:"name"`
	State  InitState `json:"state"`
	Detail string    `json:"detail"`
}

// Init makes what is missing of pools and cephx users in the cluster, and of
// keyrings, the [client] section of ceph.conf, the folders that it names and the
// libvirt secret of client.cinder on the host. It works on the files of the machine
// that it runs on. What is there is left as it is; if it is not as it must be, the
// rest is made all the same, and the error is [disk.ErrExists] and says what differs.
// With Force that is changed, too, but for a pool that is another application's and a
// keyring with several users, which would do harm.
//
// Nothing is undone on failure. Run again, it does what is left; run once more, it
// changes nothing. The configured user must be client.admin, or one with as much.
//
// Similar to: ceph osd pool create, rbd pool init, ceph auth get-or-create.
func (h *Host) Init(ctx context.Context, o InitOptions) ([]InitItem, error) {
	const op, object = "init", "cluster"
	i := &initializing{h: h, o: o}
	defer i.end()
	if err := i.prepare(ctx); err != nil {
		return nil, failed(op, object, err)
	}
	if err := i.inspect(ctx); err != nil {
		return nil, failed(op, object, err)
	}
	if !o.DryRun {
		if err := h.run(ctx, op, object, i.steps()...); err != nil {
			return i.items(), err
		}
	}
	return i.items(), i.differing()
}

// initializing is the state that the steps share.
type initializing struct {
	session
	h      *Host
	o      InitOptions
	chores []*chore
	users  map[string]secret.User // those that the cluster has
	owner  owner                  // of keyrings
	qemu   owner
	conf   map[string]string // what guests are told once ceph.conf is complete
}

// chore is an item, and how it comes to be as it must.
type chore struct {
	InitItem
	steps []step // of what is Missing, or Differs and can be changed
	// becomes is Made if it is "".
	becomes InitState
}

// prepare checks the options and makes the connections.
func (i *initializing) prepare(ctx context.Context) (err error) {
	if i.o.ClusterOnly && i.o.HostOnly {
		return badInput("the cluster's part only and the host's part only exclude each other")
	}
	if i.o.HostOnly && i.o.InstantRestore {
		return badInput("the host's part only gives no user a cap")
	}
	if i.o.PGs < 0 {
		return badInput("the number of placement groups is %d", i.o.PGs)
	}
	for _, name := range i.o.Users {
		if !slices.ContainsFunc(secret.Services(), func(u secret.User) bool { return u.Name == name }) {
			return badInput("client.%s is none of client.glance, client.cinder and client.cinder-backup", name)
		}
	}
	if i.owner, err = parseOwner(i.o.KeyringOwner); err != nil {
		return err
	}
	if i.qemu, err = parseOwner(i.o.QEMUOwner); err != nil {
		return err
	}
	if i.o.KeyringDir == "" {
		i.o.KeyringDir = "/etc/ceph"
	}
	if i.o.TmpfilesDir == "" {
		i.o.TmpfilesDir = "/etc/tmpfiles.d"
	}
	if i.o.ClusterOnly || i.o.NoLibvirt {
		i.cluster, err = i.h.Cluster(ctx)
		return err
	}
	return i.open(ctx, i.h)
}

// inspect finds out what is there and plans what is not.
func (i *initializing) inspect(ctx context.Context) error {
	parts := []func(context.Context) error{i.findUsers}
	if !i.o.HostOnly {
		parts = append(parts, i.inspectPools, i.inspectUsers)
	}
	if !i.o.ClusterOnly {
		parts = append(parts, i.inspectKeyrings, i.inspectConf)
	}
	if !i.o.ClusterOnly && !i.o.NoLibvirt {
		parts = append(parts, i.inspectFolders, i.inspectTmpfiles, i.inspectSecret)
	}
	for _, part := range parts {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

// steps are those of the chores that are to be done. A chore has become what it should
// with its last step.
func (i *initializing) steps() []step {
	var all []step
	for _, t := range i.chores {
		if t.State == Found || t.State == Differs && !i.o.Force {
			continue
		}
		if t.becomes == "" {
			t.becomes = Made
		}
		for k, s := range t.steps {
			s.name = t.Kind
			if s.detail == nil {
				s.detail = says(t.Name)
			}
			if do := s.do; k == len(t.steps)-1 {
				s.do = func(ctx context.Context) error {
					err := do(ctx)
					if err == nil {
						t.State = t.becomes
					}
					return err
				}
			}
			all = append(all, s)
		}
	}
	return all
}

func (i *initializing) items() []InitItem {
	all := []InitItem{}
	for _, t := range i.chores {
		all = append(all, t.InitItem)
	}
	return all
}

// differing is the error for what was left alone.
func (i *initializing) differing() error {
	e := &disk.Error{Kind: disk.ErrExists, Reason: "not all is as it must be"}
	mendable := false
	for _, t := range i.chores {
		if i.o.Force && len(t.steps) > 0 {
			continue // it was changed, or would be but for the dry run
		}
		if t.State == Differs {
			e.Holders = append(e.Holders, t.Kind+" "+t.Name+": "+t.Detail)
			mendable = mendable || len(t.steps) > 0
		}
	}
	if len(e.Holders) == 0 {
		return nil
	}
	next := ""
	if mendable {
		next = "to change what differs:  vmdisk cluster init --force"
	}
	return &Error{Op: "init", Object: "cluster", Err: e, Next: next}
}

// add plans an item.
func (i *initializing) add(t *chore) { i.chores = append(i.chores, t) }

func (i *initializing) inspectPools(ctx context.Context) error {
	for _, name := range disk.Pools() {
		p, err := i.cluster.Pool(ctx, name)
		create := step{do: func(ctx context.Context) error { return i.cluster.CreatePool(ctx, name, i.o.PGs) }}
		initialise := step{detail: says(name + " for rbd"), do: func(ctx context.Context) error { return i.cluster.InitPool(ctx, name) }}
		t := &chore{InitItem: InitItem{Kind: "pool", Name: name, State: Found}}
		switch {
		case errors.Is(err, disk.ErrNotFound):
			t.State, t.steps = Missing, []step{create, initialise}
		case err != nil:
			return err
		case p.Erasure:
			t.State, t.Detail = Differs, "is erasure-coded, which the headers of RBD images cannot be in"
		case p.Initialised:
			t.Detail = fmt.Sprintf("%d placement groups", p.PGs)
		case len(p.Applications) > 0 && !slices.Contains(p.Applications, "rbd"):
			t.State, t.Detail = Differs, "belongs to the application "+strings.Join(p.Applications, ", ")+" and not to rbd"
		default:
			t.State, t.becomes, t.Detail, t.steps = Missing, Changed, "is not initialised for rbd", []step{initialise}
		}
		i.add(t)
	}
	return nil
}

// findUsers reads the users that there are. A user who may not read them does well
// without on a host that has its keyrings.
func (i *initializing) findUsers(ctx context.Context) error {
	i.users = map[string]secret.User{}
	for _, want := range secret.Services() {
		u, err := secret.ReadUser(ctx, i.cluster.Ask, want.Name)
		switch {
		case err == nil:
			i.users[want.Name] = u
		case errors.Is(err, disk.ErrPermission) && i.o.HostOnly:
			i.users = nil
			return nil
		case !errors.Is(err, disk.ErrNotFound):
			return err
		}
	}
	return nil
}

func (i *initializing) inspectUsers(context.Context) error {
	for _, want := range secret.Services() {
		more := map[string]string{} // that is asked for by name
		if i.o.InstantRestore && want.Name == "cinder" {
			more = secret.ReadsBackups(i.h.cfg.BackupPool)
		}
		all := want.Grant(more)
		t := &chore{InitItem: InitItem{Kind: "user", Name: "client." + want.Name, State: Found, Detail: secret.CapsText(all.Caps)}}
		has, ok := i.users[want.Name]
		lacks := secret.Lacking(has.Caps, all.Caps)
		switch {
		case !ok:
			t.State = Missing
			t.steps = []step{{do: func(ctx context.Context) error { return secret.CreateUser(ctx, i.cluster.Ask, all) }}}
		case len(lacks) > 0:
			t.State, t.becomes = Differs, Changed
			if len(secret.Lacking(has.Caps, want.Caps)) == 0 {
				t.State = Missing
			}
			t.Detail = "lacks " + secret.CapsText(lacks)
			// What it may do besides stays: its machines may have disks in other pools.
			t.steps = []step{{do: func(ctx context.Context) error { return secret.SetCaps(ctx, i.cluster.Ask, has.Grant(lacks)) }}}
		}
		i.add(t)
	}
	return nil
}
