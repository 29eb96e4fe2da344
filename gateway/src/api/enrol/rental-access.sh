#!/bin/sh
# Installed by the enrolment with fleetgate: lets renters log in to one account of this device, and takes
# that away again. The account that the gateway logs in to may run it as root, with these verbs only:
#   status                 what is granted, and what runs as the account
#   grant RENTAL UNTIL MODE ACCOUNT
#                          lets the rental in until then (seconds since 1970), and no other one; the standard
#                          input has a line for each of its keys: the key, or the mark of it that is a part of
#                          the principal of its certificate. What runs as the account ends if a key was let in
#                          before and is not any more. With another mode or account than here, it prints the status
#   revoke                 lets no one in, ends what runs as the account, and checks that nothing is left
# It prints one line, `fleetgate-rental 2 ...`, and ends with 0 if it did what was asked. Each verb may be
# repeated. Everything that it reads of the account's files and processes may be hostile.
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin
LC_ALL=C
export PATH LC_ALL
# The end of a key is written in the time of the server.
unset CDPATH ENV BASH_ENV TZ
umask 022
cd /

# Tests replace it.
ROOT=''
PROC=/proc
CONF=$ROOT/etc/fleetgate/rental.conf
DIR=$ROOT/etc/fleetgate/rental
# Where the systemd of an account looks for units, in its home.
UNITS='.config/systemd/user .config/systemd/user.control .local/share/systemd/user'
MOST_KEYS=64
MOST_MARKS=256
MOST_BYTES=65536
# Seconds in which the processes of the account must end. A process that waits for a disk ends late.
PATIENCE=20

say() { printf 'fleetgate-rental 2 %s\n' "$*"; }
die() { say "error: $*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
setting() { sed -n "s/^$1=//p" "$CONF" | head -n 1; }

settings() {
    [ "$(id -u)" = 0 ] || die "this must run as root"
    [ -r "$CONF" ] || die "$CONF is missing: run enrol.sh with --rental-user again"
    ACCOUNT=$(setting account) MODE=$(setting mode) EXPIRY=$(setting expiry)
    ACCOUNT_UID=$(id -u "$ACCOUNT" 2>/dev/null) || die "there is no account $ACCOUNT any more: run enrol.sh with --rental-user again"
    [ "$ACCOUNT_UID" != 0 ] || die "$ACCOUNT is root: choose another account for renters"
    HOME_DIR=$(awk -F : -v user="$ACCOUNT" '$1 == user { print $6; exit }' "$ROOT/etc/passwd")
    case $HOME_DIR in
        /?*) HOME_DIR=$ROOT$HOME_DIR ;;
        *) die "$ACCOUNT has no home directory" ;;
    esac
    case $MODE in
        certificates) KEYS=$DIR/keys ;;
        keys) KEYS=$HOME_DIR/.ssh/authorized_keys ;;
        *) die "$CONF has no mode: run enrol.sh with --rental-user again" ;;
    esac
}

# One call after the other: a late one must not undo what a newer one did.
lock() {
    mkdir -p "$DIR"
    have flock || return 0
    # The account could hold the lock of a file that it can read.
    (umask 077 && : >>"$DIR/lock")
    chmod 600 "$DIR/lock"
    exec 9>"$DIR/lock"
    flock -w 30 9 2>/dev/null || flock -n 9 || die "another call is not finished: try again"
}

# put FILE: stores what comes in, whole or not at all. Its folder is root's.
put() {
    { cat >"$1.new" && chmod 644 "$1.new" && mv -f "$1.new" "$1"; } || die "cannot write $1: is the disk full?"
}

# empty FILE: that needs no room on a disk that the account has filled.
empty() {
    [ ! -e "$1" ] || { true >"$1"; } 2>/dev/null || die "cannot empty $1"
}

# ---------------------------------------------------------------- the keys of the account

# Without certificates the server reads keys from the home of the account. Home and .ssh become root's, so that
# the account can neither write nor rename there. What it had in .ssh is moved aside and not read.
fence() {
    [ "$MODE" = keys ] || return 0
    [ -d "$HOME_DIR" ] && [ ! -L "$HOME_DIR" ] || die "$HOME_DIR is no directory"
    chown root "$HOME_DIR"
    chmod go-w "$HOME_DIR"
    if [ -L "$HOME_DIR/.ssh" ] || { [ -e "$HOME_DIR/.ssh" ] && ! is_fenced "$HOME_DIR/.ssh"; }; then
        move_aside "$HOME_DIR/.ssh"
    fi
    [ -d "$HOME_DIR/.ssh" ] || mkdir "$HOME_DIR/.ssh"
    chown root "$HOME_DIR/.ssh"
    chmod 755 "$HOME_DIR/.ssh"
}

# Whether a directory and everything in it belong to root. What the account has put there may be a link.
is_fenced() {
    [ -d "$1" ] && [ -z "$(find "$1" ! -user root | head -n 1)" ]
}

# Renames what the account has put there, however large. It follows no link.
move_aside() {
    aside=$1.former-$(date +%s)-$$
    [ ! -e "$aside" ] && [ ! -L "$aside" ] || die "$aside exists"
    mv -f "$1" "$aside"
}

# The account must not get in with a password that a renter has set.
lock_password() {
    [ "$(awk -F : -v user="$ACCOUNT" '$1 == user { print $2 }' "$ROOT/etc/shadow" 2>/dev/null)" != '*' ] || return 0
    # No password is this one. A `!` would also keep keys out of some servers.
    if have usermod; then
        usermod -p '*' "$ACCOUNT" >/dev/null 2>&1
    else
        printf '%s:*\n' "$ACCOUNT" | chpasswd -e >/dev/null 2>&1
    fi || die "the password of $ACCOUNT cannot be locked"
}

# ---------------------------------------------------------------- what runs as the account

# The processes of the account, by any of their user ids. Zombies do nothing and are their parents' affair.
processes() {
    printf '%s\n' "$PROC"/[0-9]*/status | xargs cat 2>/dev/null |
        awk -v uid="$ACCOUNT_UID" -v ranges="$(subordinate)" '
        function is_its(id, i) {
            for (i = 1; i < n; i += 2)
                if (id + 0 >= range[i] + 0 && id + 0 < range[i] + range[i + 1]) return 1
            return id == uid
        }
        BEGIN { n = split(ranges, range, " ") }
        $1 == "State:" { dead = $2 == "Z" || $2 == "X" }
        $1 == "Pid:" { pid = $2 }
        $1 == "Uid:" && !dead && (is_its($2) || is_its($3) || is_its($4) || is_its($5)) { print pid }'
}

# The user ids that the account can take in a namespace of its own, and come back from: the first one and the number
# of each range. Those below 65536 are never meant.
subordinate() {
    [ ! -r "$ROOT/etc/subuid" ] || awk -F : -v user="$ACCOUNT" -v uid="$ACCOUNT_UID" '
        ($1 == user || $1 == uid) && $2 >= 65536 { printf "%d %d ", $2, $3 }' "$ROOT/etc/subuid"
}

# Ends everything at once where the system can, and stops what is left before it ends it: what is stopped
# does not fork.
end_processes() {
    if have loginctl; then
        loginctl disable-linger "$ACCOUNT" >/dev/null 2>&1 || true
        loginctl kill-user --signal=KILL "$ACCOUNT" >/dev/null 2>&1 || true
        loginctl terminate-user "$ACCOUNT" >/dev/null 2>&1 || true
    fi
    rm -f "$ROOT/var/lib/systemd/linger/$ACCOUNT"
    group=/sys/fs/cgroup/user.slice/user-$ACCOUNT_UID.slice/cgroup.kill
    if [ -w "$group" ]; then { echo 1 >"$group"; } 2>/dev/null || true; fi
    signal STOP
    signal STOP
    signal KILL
}

signal() {
    # shellcheck disable=SC2046
    kill -s "$1" $(processes) 2>/dev/null || true
}

# What would start something as the account later.
end_jobs() {
    if have crontab; then crontab -u "$ACCOUNT" -r >/dev/null 2>&1 || true; fi
    rm -f "$ROOT/var/spool/cron/crontabs/$ACCOUNT" "$ROOT/var/spool/cron/$ACCOUNT" \
        "$ROOT/var/spool/cron/tabs/$ACCOUNT" "$ROOT/etc/crontabs/$ACCOUNT"
    for job in $(at_jobs); do atrm "$job" >/dev/null 2>&1 || true; done
}

at_jobs() {
    have atq || return 0
    atq 2>/dev/null | awk -v user="$ACCOUNT" '$NF == user && $1 ~ /^[0-9]+$/ { print $1 }'
}

# Units of the account start with its next login. It has no process now that could change the paths meanwhile.
end_units() {
    [ -d "$HOME_DIR" ] && [ ! -L "$HOME_DIR" ] || return 0
    for folder in $UNITS; do end_units_in "$folder"; done
}

# Links on the path are removed and not followed.
end_units_in() {
    path=$HOME_DIR
    for part in $(printf %s "$1" | tr / ' '); do
        path=$path/$part
        if [ -L "$path" ]; then rm -f "$path"; fi
        [ -d "$path" ] || return 0
    done
    move_aside "$path"
}

# ---------------------------------------------------------------- verbs

# What is granted: `granted principal`, `granted until`.
granted() {
    [ ! -r "$DIR/granted" ] || sed -n "s/^$1=//p" "$DIR/granted" | head -n 1
}

count() { wc -l | tr -d ' '; }

# What of a renter is left, in a few words.
left() {
    found=
    if [ -s "$DIR/principals" ] || [ -s "$KEYS" ]; then found="$found keys;"; fi
    running=$(processes | head -n 8 | tr '\n' ' ')
    [ -z "$running" ] || found="$found processes $running;"
    [ -z "$(at_jobs)" ] || found="$found at jobs;"
    for file in "$ROOT/var/spool/cron/crontabs/$ACCOUNT" "$ROOT/var/spool/cron/$ACCOUNT" \
        "$ROOT/etc/crontabs/$ACCOUNT" "$ROOT/var/lib/systemd/linger/$ACCOUNT"; do
        if [ -e "$file" ]; then found="$found $file;"; fi
    done
    for folder in $UNITS; do
        if [ -e "$HOME_DIR/$folder" ]; then found="$found systemd units;"; fi
    done
    printf '%s\n' "$found" | tr -s ' ' | sed -e 's/^ //' -e 's/ *;$//'
}

status() {
    principal=$(granted principal) until=$(granted until)
    say "status account=$ACCOUNT mode=$MODE principal=${principal:--} until=${until:--} processes=$(processes | count)"
}

check_grant() {
    [ "$(printf %s "$1" | count)" = 0 ] && [ ${#1} -le 64 ] || die "this is no rental"
    case $1 in
        l_*[!a-z0-9]*) die "this is no rental" ;;
        l_?*) ;;
        *) die "this is no rental" ;;
    esac
    case $2 in
        '' | *[!0-9]* | ?????????????*) die "until: seconds since 1970 are expected" ;;
    esac
}

# Reads the standard input.
read_given() {
    head -c "$((MOST_BYTES + 1))" >"$DIR/given"
    [ "$(wc -c <"$DIR/given")" -le "$MOST_BYTES" ] || refuse_keys "these keys are too long"
    if [ "$MODE" = keys ]; then check_keys; else check_marks; fi
}

check_marks() {
    awk -v most="$MOST_MARKS" '
        /^$/ { next }
        length($0) != 20 || /[^0-9a-f]/ || ++n > most { exit 1 }' "$DIR/given" ||
        refuse_keys "the marks of keys must be at most $MOST_MARKS lines of 20 hexadecimal digits"
}

# A line that is no key refuses them all: options of a key could run commands.
check_keys() {
    awk -v most="$MOST_KEYS" '
        /^$/ { next }
        NF != 2 || $1 !~ /^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521))$/ { exit 1 }
        $2 !~ /^AAAA[A-Za-z0-9+\/]+=*$/ || ++n > most { exit 1 }' "$DIR/given" ||
        refuse_keys "the keys must be at most $MOST_KEYS lines of an OpenSSH public key without a comment"
}

refuse_keys() {
    rm -f "$DIR/given"
    die "$*"
}

# Whether a key of the same rental was let in, and is not any more.
is_one_removed() {
    [ -s "$DIR/admitted" ] && awk -v given="$DIR/given" '
        BEGIN { while ((getline line <given) > 0) stays[line] = 1 }
        NF && !($0 in stays) { removed = 1 }
        END { exit !removed }' "$DIR/admitted"
}

# Options of a line in authorized_keys: OpenSSH then refuses the keys after the end, also without a revoke, and permits
# what a certificate does.
key_options() {
    [ -z "$EXPIRY" ] || printf 'restrict,pty,expiry-time="%s" ' "$(date -d "@$1" +%Y%m%d%H%M%S)"
}

grant() {
    check_grant "$1" "$2"
    # The enrolment may have run again.
    if [ "$3" != "$MODE" ] || [ "$4" != "$ACCOUNT" ]; then
        status
        exit 1
    fi
    read_given
    # The gateway may have forgotten it: its database may be older. Sessions do not say whose key opened them.
    before=$(granted principal)
    if { [ -n "$before" ] && [ "$before" != "$1" ]; } || is_one_removed; then remove_access; fi
    fence
    lock_password
    [ "$MODE" != keys ] || options=$(key_options "$2")
    # It is noted first: what is interrupted is revoked as what was granted.
    printf 'principal=%s\nuntil=%s\n' "$1" "$2" | put "$DIR/granted"
    # Before they are let in: what is interrupted is known to the next call.
    awk NF "$DIR/given" | put "$DIR/admitted"
    if [ "$MODE" = keys ]; then
        awk -v options="$options" 'NF { print options $0 }' "$DIR/given" | put "$KEYS"
    else
        awk -v rental="$1" 'NF { print rental "." $0 }' "$DIR/given" | put "$DIR/principals"
    fi
    rm -f "$DIR/given"
    say "granted $1 until $2"
}

revoke() {
    remove_access
    rm -f "$DIR/given"
    say "revoked"
}

remove_access() {
    empty "$DIR/principals"
    fence
    empty "$KEYS"
    lock_password
    began=$(date +%s) clean=0
    while [ "$clean" -lt 2 ] && [ $(($(date +%s) - began)) -lt "$PATIENCE" ]; do
        end_jobs
        if [ -n "$(processes)" ]; then
            clean=0
            end_processes
        else
            clean=$((clean + 1))
        fi
        # A login that was in progress when the keys went shows within a second.
        sleep 1
    done
    rm -f "$ROOT/var/lib/systemd/linger/$ACCOUNT"
    [ -n "$(processes)" ] || end_units
    rest=$(left)
    [ -z "$rest" ] || { say "left: $rest"; exit 1; }
    rm -f "$DIR/granted" "$DIR/admitted"
}

main() {
    case $#:${1:-} in
        1:status | 1:revoke | 5:grant) ;;
        *) die "usage: status | grant RENTAL UNTIL MODE ACCOUNT | revoke" ;;
    esac
    settings
    [ "$1" = status ] || lock
    "$@"
}

main "$@"
