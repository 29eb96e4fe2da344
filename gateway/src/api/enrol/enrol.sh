#!/bin/sh
# Enrols this device with a fleetgate gateway: makes its keys here, asks to be let in, waits for the
# approval, writes the WireGuard configuration, lets the gateway's SSH key in, starts the tunnel.
#
#   curl -fsS URL/enrol.sh | sh -s -- --token TOKEN [--name NAME] [--ssh-user USER]
#
# Safe to run twice: keys are kept, and the same key gets the same answer. No secret leaves the
# device: the gateway gets public keys, and the SHA-256 of the secret that this script asks again
# with. Everything runs in functions, so that a download that breaks off does nothing.
set -eu
umask 077

DEFAULT_URL='@FLEETGATE_URL@'
# The public key of the authority that signs the keys of renters.
RENTAL_CA='@FLEETGATE_RENTAL_CA@'

usage() {
    cat <<'TEXT'
Options, and the variables that say the same:
  --token T            FLEETGATE_ENROL_TOKEN   the enrolment token; not needed to resume a wait
  --name N             FLEETGATE_NAME          the device's name (its host name)
  --ssh-user U         FLEETGATE_SSH_USER      the account that the gateway may log in to
                                               (the token's; `none` for no login)
  --ssh-host-key FILE  FLEETGATE_SSH_HOST_KEY  the .pub file of the SSH server (is looked for)
  --url URL            FLEETGATE_URL           the gateway (the one that sent this script)
  --cacert FILE        FLEETGATE_CACERT        the certificate authority to believe
  --interface I        FLEETGATE_INTERFACE     the interface (fleetgate)
  --etc DIR            FLEETGATE_ETC           where configurations are (/etc/wireguard)
  --wait SECONDS       FLEETGATE_WAIT          how long to wait for the approval (a day)
  --network CIDR       FLEETGATE_NETWORK       forward from the tunnel to this network, and to no other
                                               (several: repeat it; in the variable, with blanks)
  --no-networks        FLEETGATE_NO_NETWORKS=1 forward to no network any more
  --rental-user U      FLEETGATE_RENTAL_USER   an account for renters, who may log in while they rent
                                               the device; it is made, and taken from its users
  --rental-root        FLEETGATE_RENTAL_ROOT=1 that account may be one that can become root by a group
  --no-rental-user     FLEETGATE_NO_RENTAL_USER=1  let no renter log in any more
  --new-key            FLEETGATE_NEW_KEY=1     enrol with new keys; the old ones work until then
  --no-service         FLEETGATE_NO_SERVICE=1  start with wg-quick, install no service or timer
  --no-start           FLEETGATE_NO_START=1    write the configuration and leave it at that
It ends with 0 when enrolled, 3 when the approval is still awaited (run it again), 4 when refused.
TEXT
}

say() { printf '%s\n' "$*" >&2; }
warn() { say "warning: $*"; }
die() { say "error: $*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

options() {
    TOKEN=${FLEETGATE_ENROL_TOKEN:-} NAME=${FLEETGATE_NAME:-} SSH_USER=${FLEETGATE_SSH_USER:-}
    SSH_HOST_KEY=${FLEETGATE_SSH_HOST_KEY:-} URL=${FLEETGATE_URL:-$DEFAULT_URL}
    CACERT=${FLEETGATE_CACERT:-} INTERFACE=${FLEETGATE_INTERFACE:-fleetgate}
    ETC=${FLEETGATE_ETC:-/etc/wireguard} WAIT=${FLEETGATE_WAIT:-86400}
    NETWORKS=${FLEETGATE_NETWORK:-} NO_NETWORKS=${FLEETGATE_NO_NETWORKS:-}
    RENTAL_USER=${FLEETGATE_RENTAL_USER:-} NO_RENTAL_USER=${FLEETGATE_NO_RENTAL_USER:-}
    RENTAL_ROOT=${FLEETGATE_RENTAL_ROOT:-}
    NEW_KEY=${FLEETGATE_NEW_KEY:-} NO_SERVICE=${FLEETGATE_NO_SERVICE:-} NO_START=${FLEETGATE_NO_START:-}
    while [ $# -gt 0 ]; do
        case $1 in
            --new-key) NEW_KEY=1; shift; continue ;;
            --no-networks) NO_NETWORKS=1; shift; continue ;;
            --no-rental-user) NO_RENTAL_USER=1; shift; continue ;;
            --rental-root) RENTAL_ROOT=1; shift; continue ;;
            --no-service) NO_SERVICE=1; shift; continue ;;
            --no-start) NO_START=1; shift; continue ;;
            -h | --help) usage; exit 0 ;;
        esac
        [ $# -ge 2 ] || { usage >&2; die "$1 needs a value, or is no option"; }
        case $1 in
            --token) TOKEN=$2 ;;
            --name) NAME=$2 ;;
            --ssh-user) SSH_USER=$2 ;;
            --ssh-host-key) SSH_HOST_KEY=$2 ;;
            --url) URL=$2 ;;
            --cacert) CACERT=$2 ;;
            --interface) INTERFACE=$2 ;;
            --etc) ETC=$2 ;;
            --wait) WAIT=$2 ;;
            --rental-user) RENTAL_USER=$2 ;;
            --network) NETWORKS="$NETWORKS $2" ;;
            *) usage >&2; die "$1 is no option" ;;
        esac
        shift 2
    done
}

check_options() {
    case $URL in
        http://* | https://*) URL=${URL%/} ;;
        *) die "where is the gateway? say --url https://..." ;;
    esac
    case $INTERFACE in
        '' | *[!a-zA-Z0-9_.=+-]* | ????????????????*) die "--interface: 1 to 15 letters and digits are expected" ;;
    esac
    case $WAIT in
        '' | *[!0-9]*) die "--wait: seconds are expected" ;;
    esac
    case $TOKEN in
        *[!a-z0-9_]*) die "--token: this is not a token; it begins with fge_ or fgr_" ;;
        '' | fge_* | fgr_*) ;;
        fgt_*) die "--token: this is a token for the API; the one for a device begins with fge_ or fgr_" ;;
        *) die "--token: this is not a token; it begins with fge_ or fgr_" ;;
    esac
    [ -n "$NO_START" ] || [ "$(id -u)" = 0 ] || die "run this as root (sudo sh -s -- ...)"
    [ -z "$SSH_USER" ] || [ "$SSH_USER" = none ] || id "$SSH_USER" >/dev/null 2>&1 ||
        die "--ssh-user: there is no account $SSH_USER here: make it first (useradd --create-home $SSH_USER)"
    CONF=$ETC/$INTERFACE.conf KEY=$ETC/$INTERFACE.key POLL=$ETC/$INTERFACE.poll ID=$ETC/$INTERFACE.enrolment
    FORWARD=$ETC/$INTERFACE.forward
    NEXT=
    check_networks
    check_rental_user
}

check_networks() {
    NETWORKS=$(printf %s "$NETWORKS" | tr -s ', ' '  ' | sed -e 's/^ //' -e 's/ $//')
    [ -n "$NETWORKS" ] || return 0
    [ -z "$NO_NETWORKS" ] || die "--network and --no-networks exclude each other"
    case $NETWORKS in
        *[!0-9a-fA-F.:/\ ]*) die "--network: $NETWORKS is no network: a prefix such as 192.168.7.0/24 is expected" ;;
    esac
    for network in $NETWORKS; do
        is_network "$network" || die "--network: $network is no network: a prefix such as 192.168.7.0/24 is expected"
    done
    # It becomes a part of the commands that wg-quick runs.
    case $ETC in
        /*[!a-zA-Z0-9_./-]* | [!/]*) die "--etc: with --network, an absolute path of letters, digits and _ . - is expected" ;;
    esac
}

check_rental_user() {
    [ -n "$RENTAL_USER" ] || return 0
    [ -z "$NO_RENTAL_USER" ] || die "--rental-user and --no-rental-user exclude each other"
    case $RENTAL_USER in
        [!a-z_]* | *[!a-z0-9_-]* | ?????????????????????????????????*)
            die "--rental-user: $RENTAL_USER is no name of an account: letters a-z, digits, _ and - are expected" ;;
    esac
    [ -z "$NO_START" ] || die "--rental-user and --no-start exclude each other"
    [ "$(id -u)" = 0 ] || die "--rental-user needs root (sudo sh -s -- ...)"
    [ "$RENTAL_USER" != "$SSH_USER" ] || die "--rental-user: $SSH_USER is the account of the gateway: choose another one"
    [ "$(id -u "$RENTAL_USER" 2>/dev/null)" != 0 ] || die "--rental-user: $RENTAL_USER is root: choose another account"
    check_rental_groups
}

# Who is in one of these groups can become root.
check_rental_groups() {
    [ -z "$RENTAL_ROOT" ] || return 0
    for group in $(id -Gn "$RENTAL_USER" 2>/dev/null); do
        case $group in
            root | sudo | wheel | admin | docker | lxd | incus-admin | libvirt | disk)
                die "--rental-user: $RENTAL_USER can become root by the group $group: take it out of the group, choose another account, or say --rental-root if its renters are meant to be root" ;;
        esac
    done
}

# Whether it is a prefix that a network of a site may have: not everything, no loopback, no multicast.
is_network() {
    printf '%s\n' "$1" | awk -F / '
        NF != 2 || $2 !~ /^[0-9]+$/ || $2 < 1 { exit 1 }
        $1 ~ /:/ { exit !($2 <= 128 && $1 ~ /^[0-9a-fA-F:.]+$/ && $1 !~ /:::/ && $1 !~ /^[fF][fF]/) }
        { count = split($1, part, ".") }
        count != 4 || $2 > 32 || part[1] == 127 || part[1] > 223 { exit 1 }
        { for (i = 1; i <= 4; i++) if (part[i] !~ /^[0-9]+$/ || part[i] > 255) exit 1 }'
}

# ---------------------------------------------------------------- what is needed

packages() {
    have apt-get && [ "$(id -u)" = 0 ] || return 1
    say "installing: $*"
    DEBIAN_FRONTEND=noninteractive apt-get install -y "$@" </dev/null >&2 ||
        { apt-get update </dev/null >&2 && DEBIAN_FRONTEND=noninteractive apt-get install -y "$@" </dev/null >&2; }
}

tools() {
    have wg || packages wireguard-tools || true
    have wg || die "wg is missing: install wireguard-tools, then run this again"
    have curl || have wget || die "curl or wget is needed"
    have sha256sum || have openssl || die "sha256sum or openssl is needed"
    [ -z "$NETWORKS" ] || packet_filter
}

# The generated script takes iptables before nft: see there.
packet_filter() {
    have iptables || have nft || packages nftables || true
    have iptables || have nft || die "--network needs nft or iptables: install nftables, then run this again"
    case $NETWORKS in
        *:*) have ip6tables || have nft || die "--network: an IPv6 network needs nft or ip6tables: install nftables, then run this again" ;;
    esac
}

# Old kernels and small systems have no WireGuard of their own.
userspace() {
    USERSPACE=
    if ip link add dev fleetgate-try type wireguard >/dev/null 2>&1; then
        ip link delete dev fleetgate-try
        return
    fi
    have wireguard-go || packages wireguard-go || true
    have wireguard-go || die "this kernel has no WireGuard: install its module, or wireguard-go"
    USERSPACE=wireguard-go
}

sha256() {
    if have sha256sum; then sha256sum | cut -d ' ' -f 1; else openssl dgst -sha256 -r | cut -d ' ' -f 1; fi
}

# ---------------------------------------------------------------- talking to the gateway

# request METHOD PATH: the body is $TMP/request, the answer $TMP/answer and STATUS. The polling
# secret goes along with questions only (the request to enrol holds its hash), and it stands in a
# file for curl or wget: arguments can be read by every user of the machine.
request() {
    : >"$TMP/answer"
    if have curl; then by_curl "$1" "$2"; else by_wget "$1" "$2"; fi
}

by_curl() {
    : >"$TMP/curl"
    [ "$1" = POST ] || printf 'header = "Authorization: Bearer %s"\n' "$(cat "$POLL")" >"$TMP/curl"
    set -- -X "$1" "$URL$2"
    [ "$2" = GET ] || set -- -H 'Content-Type: application/json' --data-binary "@$TMP/request" "$@"
    [ -z "$CACERT" ] || set -- --cacert "$CACERT" "$@"
    STATUS=$(curl -sS --max-time 60 --config "$TMP/curl" -H 'Accept: text/plain' -o "$TMP/answer" \
        -w '%{http_code}' "$@" 2>"$TMP/errors") || STATUS=000
}

by_wget() {
    : >"$TMP/wget"
    [ "$1" = POST ] || printf 'header = Authorization: Bearer %s\n' "$(cat "$POLL")" >"$TMP/wget"
    set -- "$1" "$URL$2"
    if [ "$1" = POST ]; then
        set -- --post-file="$TMP/request" --header='Content-Type: application/json' "$2"
    else
        set -- "$2"
    fi
    [ -z "$CACERT" ] || set -- --ca-certificate="$CACERT" "$@"
    WGETRC=$TMP/wget wget -q -S --content-on-error --tries=1 --timeout=60 --header='Accept: text/plain' \
        -O "$TMP/answer" "$@" 2>"$TMP/errors" || true
    STATUS=$(sed -n 's/^ *HTTP\/[0-9.]* \([0-9]*\).*/\1/p' "$TMP/errors" | tail -n 1)
    STATUS=${STATUS:-000}
}

# A line `name=value` of the answer.
value() { sed -n "s/^$1=//p" "$TMP/answer" | head -n 1; }

# What a problem document says.
problem() {
    sed -e 's/","request_id".*//' -e 's/.*"detail":"//' -e 's/\\"/"/g' "$TMP/answer" | head -n 1
}

code() { sed -n 's/.*"code":"\([a-z_]*\)".*/\1/p' "$TMP/answer" | head -n 1; }

# What curl or wget says, without the advice that follows it.
reason() {
    sed -n -e 's/^curl: //p' -e 's/^wget: //p' -e 's/^ERROR: //p' "$TMP/errors" | head -n 1 | grep . ||
        tail -n 1 "$TMP/errors"
}

unanswered() {
    WHY=$(reason)
    case $WHY in
        *ertificate*) [ -n "$CACERT" ] || WHY="$WHY: if its authority is your own, add --cacert FILE" ;;
    esac
    die "no answer from $URL: $WHY"
}

refused() {
    [ "$STATUS" != 000 ] || unanswered
    say "error: $(problem)"
    case $(code) in
        key_in_use) say "run this again with --new-key to make a new pair (the old one stays until it is let in)" ;;
        name_taken) say "run this again with another --name" ;;
    esac
    # What the gateway could not decide now, it may know already: the same key asks again.
    case $STATUS in
        429 | 5??) ;;
        *) drop_next ;;
    esac
    exit 4
}

# ---------------------------------------------------------------- keys

# keep FILE: stores what comes in, whole or not at all.
keep() {
    cat >"$1.new"
    [ -s "$1.new" ] || die "cannot write $1: is the disk full?"
    mv "$1.new" "$1"
}

# New keys lie beside the old ones as *.next until the gateway has agreed to them: an attempt that
# fails leaves a tunnel that works. The next run goes on with what is awaited.
choose_keys() {
    mkdir -p "$ETC"
    # Without its key, what is left was being taken over when the last run ended.
    [ -e "$KEY.next" ] || take_next
    [ -n "$NEW_KEY" ] || [ -s "$ID.next" ] || return 0
    NEXT=1 KEY=$KEY.next POLL=$POLL.next ID=$ID.next
    if [ -s "$KEY" ] && wg pubkey <"$KEY" >/dev/null 2>&1; then return 0; fi
    drop_next
}

take_next() {
    for file in "$ETC/$INTERFACE".key "$ETC/$INTERFACE".poll "$ETC/$INTERFACE".enrolment; do
        [ ! -e "$file.next" ] || mv "$file.next" "$file"
    done
}

# The key goes last: see choose_keys.
drop_next() {
    [ -z "$NEXT" ] || rm -f "$ID" "$POLL" "$KEY"
}

keys() {
    choose_keys
    [ -s "$KEY" ] || wg genkey | keep "$KEY"
    [ -s "$POLL" ] || wg genkey | sha256 | keep "$POLL"
    PUBLIC_KEY=$(wg pubkey <"$KEY") || die "$KEY is damaged: run this again with --new-key"
}

host_key() {
    if [ -z "$SSH_HOST_KEY" ]; then
        for file in /etc/ssh/ssh_host_ed25519_key.pub /etc/ssh/ssh_host_ecdsa_key.pub /etc/ssh/ssh_host_rsa_key.pub; do
            [ ! -r "$file" ] || { SSH_HOST_KEY=$file; break; }
        done
    fi
    if [ -n "$SSH_HOST_KEY" ]; then
        [ -r "$SSH_HOST_KEY" ] || die "--ssh-host-key: cannot read $SSH_HOST_KEY"
        sed -n 's/^\([a-z0-9@.-]* [A-Za-z0-9+\/=]*\).*/\1/p' "$SSH_HOST_KEY" | head -n 1
    elif have dropbearkey; then
        for file in /etc/dropbear/dropbear_ed25519_host_key /etc/dropbear/dropbear_rsa_host_key; do
            [ ! -r "$file" ] || { dropbearkey -y -f "$file" | sed -n 's/^\(ssh-[a-z0-9-]* [A-Za-z0-9+\/=]*\).*/\1/p'; break; }
        done
    fi
}

default_name() {
    hostname | tr 'A-Z_' 'a-z-' | tr -cd 'a-z0-9.-' | cut -c 1-63 | sed -e 's/^[.-]*//' -e 's/[.-]*$//'
}

# ---------------------------------------------------------------- enrolment

ask() {
    NAME=${NAME:-$(default_name)}
    host=$(host_key)
    {
        printf '{"token":"%s","name":"%s","public_key":"%s","poll_hash":"%s"' \
            "$TOKEN" "$(printf %s "$NAME" | tr -d '"\134')" "$PUBLIC_KEY" "$(tr -d '\n' <"$POLL" | sha256)"
        [ -z "$host" ] || printf ',"ssh_host_key":"%s"' "$host"
        printf '}'
    } >"$TMP/request"
    request POST /api/v1/enrol
    case $STATUS in
        200 | 201) value id | keep "$ID" ;;
        *) refused ;;
    esac
}

poll() {
    request GET "/api/v1/enrol/$(cat "$ID")"
    [ "$STATUS" = 200 ] || refused
}

approval() {
    waited=0
    while [ "$(value state)" = awaiting_approval ]; do
        [ "$waited" != 0 ] || say "waiting for an operator to approve $(value name) (key $PUBLIC_KEY)"
        pause=$(value poll_after_s)
        if [ "$waited" -ge "$WAIT" ]; then
            say "still not approved: run this again later, no token is needed then"
            exit 3
        fi
        sleep "${pause:-5}"
        waited=$((waited + ${pause:-5}))
        request GET "/api/v1/enrol/$(cat "$ID")"
        case $STATUS in
            # The gateway may be away for a while; a person may take a day.
            000 | 429 | 5??) printf 'state=awaiting_approval\npoll_after_s=%s\n' "${pause:-5}" >"$TMP/answer" ;;
            200) ;;
            *) refused ;;
        esac
    done
    [ "$(value state)" = approved ] && return
    reason=$(value reason)
    say "error: the gateway says $(value state)${reason:+: $reason}"
    rm -f "$ID"
    drop_next
    exit 4
}

# The gateway tells it until the first handshake; after that it stands in the configuration.
preshared_key() {
    cp "$TMP/answer" "$TMP/approved"
    request GET "/api/v1/enrol/$(cat "$ID")/preshared-key"
    PSK=$(value preshared_key)
    if [ -z "$PSK" ] && has_our_key; then PSK=$(sed -n 's/^PresharedKey = //p' "$CONF"); fi
    [ -n "$PSK" ] || refused
    cp "$TMP/approved" "$TMP/answer"
}

# A configuration of an older key has another preshared key.
has_our_key() {
    [ -r "$CONF" ] && [ "$(sed -n 's/^PrivateKey = //p' "$CONF")" = "$(cat "$KEY")" ]
}

configuration() {
    for wanted in public_key endpoint addresses allowed_ips; do
        [ -n "$(value "$wanted")" ] || die "the gateway's answer lacks $wanted: is $URL a fleetgate?"
    done
    # They become a part of a script that root runs.
    case $(value allowed_ips) in
        *[!0-9a-fA-F.:/,\ ]*) die "allowed_ips of the gateway's answer are no networks: is $URL a fleetgate?" ;;
    esac
    networks
    cat >"$CONF.new" <<TEXT
# Written by the enrolment at $URL. Changes are overwritten when it runs again.
[Interface]
PrivateKey = $(cat "$KEY")
Address = $(value addresses)
MTU = $(value mtu)$HOOKS

[Peer]
PublicKey = $(value public_key)
PresharedKey = $PSK
AllowedIPs = $(value allowed_ips)
Endpoint = $(value endpoint)
PersistentKeepalive = $(value keepalive_s)
TEXT
    CHANGED=1
    if cmp -s "$CONF.new" "$CONF"; then CHANGED=; fi
    chmod 600 "$CONF.new"
    mv "$CONF.new" "$CONF"
    [ -z "$NEXT" ] || take_next
}

# ---------------------------------------------------------------- networks behind this device

# What a former run has written: `recorded networks`.
recorded() {
    [ ! -r "$FORWARD" ] || sed -n "s/^$1='\(.*\)'\$/\1/p" "$FORWARD" | head -n 1
}

# A run without --network keeps what a former one has set up.
networks() {
    HOOKS=
    if [ -n "$NO_NETWORKS" ] && [ -e "$FORWARD" ]; then
        if [ -n "$NO_START" ]; then
            warn "with --no-start, forwarding and its rules stay as they are until the next boot"
        else
            sh "$FORWARD" remove || die "$FORWARD remove: failed"
        fi
        rm -f "$FORWARD"
    fi
    [ -n "$NETWORKS" ] || NETWORKS=$(recorded networks)
    [ -n "$NETWORKS" ] || return 0
    forward_script
    # A packet filter that fails must not keep the tunnel down.
    HOOKS="
PostUp = sh $FORWARD up || true
PostDown = sh $FORWARD down || true"
}

# of FAMILY WORD...: the networks or addresses of one family, 4 or 6.
of() {
    family=$1
    shift
    for word in "$@"; do
        case $family$word in
            4*:*) ;;
            4* | 6*:*) printf '%s\n' "$word" ;;
        esac
    done
}

# closed FAMILY: `yes` if this machine was no router before. Then nothing is forwarded between its other
# interfaces. What a former run has decided stays, because forwarding is on since then.
# shellcheck disable=SC2046,SC2086
closed() {
    found=$(recorded "closed_v$1")
    if [ -n "$found" ] || [ -z "$(of "$1" $NETWORKS)" ] || [ -n "$(of "$1" $(recorded networks))" ]; then
        printf '%s\n' "$found"
        return 0
    fi
    switch=/proc/sys/net/ipv4/ip_forward
    [ "$1" = 4 ] || switch=/proc/sys/net/ipv6/conf/all/forwarding
    [ "$(cat "$switch" 2>/dev/null || echo 0)" != 0 ] || echo yes
}

forward_script() {
    closed_v4=$(closed 4)
    closed_v6=$(closed 6)
    cat >"$FORWARD.new" <<TEXT
#!/bin/sh
# Written by the enrolment at $URL. Changes are overwritten when it runs again.
interface='$INTERFACE'
networks='$NETWORKS'
pools='$(value allowed_ips | tr -s ', ' '  ')'
closed_v4='$closed_v4'
closed_v6='$closed_v6'
TEXT
    cat >>"$FORWARD.new" <<'TEXT'

# Forwards packets from the tunnel to the networks, with this machine's own address as their source, and
# the replies back. Nothing else is forwarded from or to the tunnel. If this machine was no router before
# (closed_v4, closed_v6), nothing is forwarded between its other interfaces either, also those that appear
# later. To make it a router, empty these two variables and run `up`: a later enrolment keeps them empty.
#   up      sets the rules and turns forwarding on; running it again changes nothing
#   down    forwards nothing any more; what is closed stays closed
#   remove  removes the rules, and turns forwarding off if `up` has turned it on
set -eu

chain=fleetgate-$interface
table=fleetgate_$(printf %s "$interface" | tr -c a-zA-Z0-9 _)
have() { command -v "$1" >/dev/null 2>&1; }
add() { printf '%s\n' "$*"; }

# of FAMILY WORD...: the networks of one family, 4 or 6.
of() {
    family=$1
    shift
    for word in "$@"; do
        case $family$word in
            4*:*) ;;
            4* | 6*:*) add "$word" ;;
        esac
    done
}

# iptables comes first: other programs that use it drop forwarded packets by a policy, and a rule of nft
# could not let any pass.
uses_iptables() {
    have iptables && iptables -w -n -L FORWARD >/dev/null 2>&1 || return 1
    [ -z "$(of 6 $networks)" ] || have ip6tables
}

# The rules of one family: iptables_rules NETWORKS POOLS CLOSED
iptables_rules() {
    add '*filter'
    add ":$chain - [0:0]"
    for network in $1; do add "-A $chain -i $interface -d $network -j ACCEPT"; done
    add "-A $chain -o $interface -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
    add "-A $chain -i $interface -j DROP"
    add "-A $chain -o $interface -j DROP"
    [ -z "$3" ] || add "-A $chain -j DROP"
    add COMMIT
    add '*nat'
    add ":$chain - [0:0]"
    for network in $1; do
        for pool in $2; do add "-A $chain -s $pool -d $network -j MASQUERADE"; done
    done
    add COMMIT
}

# by_iptables FAMILY NETWORKS POOLS CLOSED
by_iptables() {
    program=iptables
    [ "$1" = 4 ] || program=ip6tables
    iptables_rules "$2" "$3" "$4" | "$program-restore" -w --noflush
    for hook in 'filter FORWARD' 'nat POSTROUTING'; do
        jump="-j $chain"
        "$program" -w -t ${hook% *} -C ${hook#* } $jump 2>/dev/null || "$program" -w -t ${hook% *} -I ${hook#* } $jump
    done
}

# nft_rules ip|ip6 NETWORKS POOLS CLOSED
nft_rules() {
    add "add table $1 $table"
    add "delete table $1 $table"
    add "table $1 $table {"
    add 'chain forward {'
    add 'type filter hook forward priority 0; policy accept;'
    for network in $2; do add "iifname \"$interface\" $1 daddr $network accept"; done
    add "oifname \"$interface\" ct state established,related accept"
    add "iifname \"$interface\" drop"
    add "oifname \"$interface\" drop"
    [ -z "$4" ] || add drop
    add '}'
    add 'chain postrouting {'
    add 'type nat hook postrouting priority 100; policy accept;'
    for network in $2; do
        for pool in $3; do add "$1 saddr $pool $1 daddr $network masquerade"; done
    done
    add '}'
    add '}'
}

# by_nft FAMILY NETWORKS POOLS CLOSED
by_nft() {
    name=ip
    [ "$1" = 4 ] || name=ip6
    nft_rules "$name" "$2" "$3" "$4" | nft -f -
}

# Rules for these networks; without any, nothing is forwarded from or to the tunnel.
rules() {
    by=by_nft
    if uses_iptables; then by=by_iptables; fi
    for family in 4 6; do
        closed=$closed_v4
        [ "$family" = 4 ] || closed=$closed_v6
        if [ -n "$(of "$family" $networks)$closed" ]; then
            "$by" "$family" "$(of "$family" $1)" "$(of "$family" $pools)" "$closed"
        else
            remove_rules "$family"
        fi
    done
    # What a former run has set by the other program still drops and accepts. It goes last, so that no
    # packet passes without rules.
    if [ "$by" = by_iptables ]; then
        remove_nft ip
        remove_nft ip6
    else
        remove_iptables iptables
        remove_iptables ip6tables
    fi
}

# remove_rules FAMILY
remove_rules() {
    if [ "$1" = 4 ]; then
        remove_nft ip
        remove_iptables iptables
    else
        remove_nft ip6
        remove_iptables ip6tables
    fi
}

remove_nft() {
    ! have nft || nft delete table "$1" "$table" 2>/dev/null || true
}

remove_iptables() {
    have "$1" || return 0
    for hook in 'filter FORWARD' 'nat POSTROUTING'; do
        "$1" -w -t ${hook% *} -D ${hook#* } -j "$chain" || true
        for act in -F -X; do "$1" -w -t ${hook% *} "$act" "$chain" || true; done
    done 2>/dev/null
}

v4=/proc/sys/net/ipv4/ip_forward
v6=/proc/sys/net/ipv6/conf/all/forwarding

# A router ignores router advertisements, unless it is told to take them (2): its own route to the
# Internet would be lost.
keep_advertisements() {
    for file in /proc/sys/net/ipv6/conf/*/accept_ra; do
        [ "$(cat "$file")" != 1 ] || echo 2 >"$file"
    done
}

up() {
    rules "$networks"
    if [ -n "$(of 4 $networks)" ] && [ "$(cat "$v4")" = 0 ]; then echo 1 >"$v4"; fi
    if [ -n "$(of 6 $networks)" ] && [ "$(cat "$v6")" = 0 ]; then
        keep_advertisements
        echo 1 >"$v6"
    fi
}

remove() {
    if [ -n "$closed_v4" ]; then echo 0 >"$v4"; fi
    if [ -n "$closed_v6" ]; then echo 0 >"$v6"; fi
    remove_rules 4
    remove_rules 6
}

case ${1:-} in
    up) up ;;
    down) rules '' ;;
    remove) remove ;;
    *)
        echo "usage: sh $0 up|down|remove" >&2
        exit 2
        ;;
esac
TEXT
    chmod 755 "$FORWARD.new"
    mv "$FORWARD.new" "$FORWARD"
}

# The tunnel may have been up before, and its configuration the same.
# shellcheck disable=SC2086
forward() {
    [ -n "$NETWORKS" ] && [ -z "$NO_START" ] || return 0
    sh "$FORWARD" up || die "forwarding to $NETWORKS cannot be set up: see the message above"
    say "forwarding from the tunnel to $NETWORKS"
    say "the gateway needs these networks too: fleetgate device set $(value name)$(printf ' --network %s' $NETWORKS)"
}

# ---------------------------------------------------------------- the gateway's SSH key

login() {
    user=${SSH_USER:-$(value ssh_user)}
    [ -n "$user" ] && [ "$user" != none ] || return 0
    if ! id "$user" >/dev/null 2>&1; then
        warn "there is no account $user here, so the gateway cannot log in: make it and run this again"
        return 0
    fi
    key=$(value ssh_public_key)
    home=$(awk -F : -v user="$user" '$1 == user { print $6 }' /etc/passwd)
    home=${home:-$(getent passwd "$user" | cut -d : -f 6)}
    [ -d "$home" ] || { warn "the account $user has no home directory: its authorized_keys was left alone"; return 0; }
    ssh=$home/.ssh file=$home/.ssh/authorized_keys
    # What a user links to elsewhere, root must not write to.
    if [ -L "$ssh" ] || [ -L "$file" ]; then
        warn "$file is a symbolic link: add this line by hand: $key"
        return 0
    fi
    mkdir -p "$ssh"
    touch "$file"
    if ! grep -qF "$(printf %s "$key" | cut -d ' ' -f 2)" "$file"; then
        [ -z "$(tail -c 1 "$file")" ] || printf '\n' >>"$file"
        printf '%s\n' "$key" >>"$file"
    fi
    chmod 700 "$ssh"
    chmod 600 "$file"
    [ "$(id -u)" != 0 ] || chown "$user:$(id -gn "$user")" "$ssh" "$file"
    say "the gateway may log in as $user"
}

# ---------------------------------------------------------------- an account for renters

HELPER=/usr/local/lib/fleetgate/rental-access
RENTAL_CONF=/etc/fleetgate/rental.conf
RENTAL_DIR=/etc/fleetgate/rental
SSHD_CONFIG=/etc/ssh/sshd_config
SSHD_DROPIN=/etc/ssh/sshd_config.d/00-fleetgate-rental.conf
SUDOERS=/etc/sudoers.d/fleetgate-rental
DOAS_CONF=/etc/doas.conf
BLOCK_BEGINS='# BEGIN fleetgate rental'
BLOCK_ENDS='# END fleetgate rental'

# The program that root runs for the gateway.
rental_helper() {
    cat <<'RENTAL_ACCESS'
@FLEETGATE_RENTAL_ACCESS@
RENTAL_ACCESS
}

rental() {
    if [ -n "$NO_RENTAL_USER" ]; then
        no_rental
        return 0
    fi
    [ -n "$RENTAL_USER" ] || return 0
    case $RENTAL_CA in
        ssh-*) ;;
        *) die "--rental-user: get this script from the gateway: its key for renters is missing" ;;
    esac
    rental_accounts
    former_rental
    install_helper
    permit_helper
    rental_mode
    end_former_mode
    printf 'account=%s\nmode=%s\nexpiry=%s\n' "$RENTAL_USER" "$MODE" "$EXPIRY" | keep "$RENTAL_CONF"
    chmod 644 "$RENTAL_CONF"
    # A renter who has the device now stays.
    [ -n "$RENTED" ] || "$HELPER" revoke >&2 || die "$RENTAL_USER is in use: see the message above, then run this again"
    say "renters may log in as $RENTAL_USER while they rent this device, with $MODE"
    say "the gateway needs this too: fleetgate rental device $(value name) --ssh-account $RENTAL_USER${RENTAL_ROOT:+ --ssh-root}"
}

# The account of the gateway, which runs the helper, and that of the renters.
rental_accounts() {
    ADMIN=${SSH_USER:-$(value ssh_user)}
    [ -n "$ADMIN" ] && [ "$ADMIN" != none ] ||
        die "--rental-user needs an account that the gateway logs in to: say --ssh-user too"
    case $ADMIN in
        -* | *[!a-zA-Z0-9_.-]*) die "$ADMIN cannot be named in the configuration of sudo: choose another account with --ssh-user" ;;
    esac
    id "$ADMIN" >/dev/null 2>&1 || die "there is no account $ADMIN here: make it first (useradd --create-home $ADMIN)"
    [ "$ADMIN" != "$RENTAL_USER" ] || die "--rental-user: $ADMIN is the account of the gateway: choose another one"
    id "$RENTAL_USER" >/dev/null 2>&1 || make_account
    [ "$(id -u "$RENTAL_USER")" != 0 ] || die "--rental-user: $RENTAL_USER is root: choose another account"
    [ "$(id -u "$RENTAL_USER")" != "$(id -u "$ADMIN")" ] ||
        die "--rental-user: $RENTAL_USER is the account $ADMIN of the gateway: choose another one"
}

make_account() {
    shell=/bin/sh
    [ ! -x /bin/bash ] || shell=/bin/bash
    if have useradd; then
        useradd --create-home --shell "$shell" "$RENTAL_USER" >&2
    else
        adduser -D -s "$shell" "$RENTAL_USER" >&2
    fi || die "--rental-user: the account $RENTAL_USER cannot be made: make it first"
}

# Another account may have been for renters until now.
former_rental() {
    RENTED='' FORMER_MODE=''
    [ -r "$RENTAL_CONF" ] || return 0
    former=$(sed -n 's/^account=//p' "$RENTAL_CONF")
    FORMER_MODE=$(sed -n 's/^mode=//p' "$RENTAL_CONF")
    if [ "$former" = "$RENTAL_USER" ]; then
        RENTED=1
    elif [ -x "$HELPER" ] && id "$former" >/dev/null 2>&1; then
        "$HELPER" revoke >&2 || die "renters still have the account $former: run this again"
    fi
}

# The SSH server may be another one, or another version. What renters were given for the former one would stay, so they
# lose it while the former mode is still noted. The gateway gives it to the present renter again.
end_former_mode() {
    case $FORMER_MODE in
        certificates | keys) [ -n "$RENTED" ] && [ "$FORMER_MODE" != "$MODE" ] || return 0 ;;
        *) return 0 ;;
    esac
    "$HELPER" revoke >&2 || die "$RENTAL_USER is in use: see the message above, then run this again"
    say "renters log in with $MODE from now on, and no more with $FORMER_MODE: the gateway notices within a quarter of an hour"
    RENTED=
}

install_helper() {
    # Servers read the files as the renter, and refuse folders that others write to.
    mkdir -p "${HELPER%/*}" "$RENTAL_DIR"
    chown 0:0 "${HELPER%/*}" "$RENTAL_DIR"
    chmod 755 "${HELPER%/*}" "$RENTAL_DIR"
    chmod go+x-w "${RENTAL_DIR%/*}"
    rental_helper | keep "$HELPER"
    chown 0:0 "$HELPER"
    chmod 755 "$HELPER"
    printf '%s\n' "$RENTAL_CA" | keep "$RENTAL_DIR/ca.pub"
    for file in keys principals; do touch "$RENTAL_DIR/$file"; done
    chmod 644 "$RENTAL_DIR/ca.pub" "$RENTAL_DIR/keys" "$RENTAL_DIR/principals"
}

# Root needs no permission.
permit_helper() {
    [ "$(id -u "$ADMIN")" != 0 ] || return 0
    have sudo || have doas || packages sudo || true
    if have sudo && have visudo; then
        permit_by_sudo
    elif have doas; then
        permit_by_doas
    else
        die "--rental-user needs sudo or doas, so that $ADMIN may run $HELPER: install sudo, then run this again"
    fi
}

permit_by_sudo() {
    cat >"$TMP/sudoers" <<TEXT
# Written by the enrolment at $URL: what the gateway runs as root.
Defaults!$HELPER env_reset, !requiretty
$ADMIN ALL=(root) NOPASSWD: $HELPER status, $HELPER revoke, $HELPER grant *
TEXT
    visudo -c -f "$TMP/sudoers" >"$TMP/visudo" 2>&1 || { cat "$TMP/visudo" >&2; die "sudo does not accept its new file"; }
    mkdir -p "${SUDOERS%/*}"
    # sudo reads no file with a dot in its name.
    cp "$TMP/sudoers" "$SUDOERS.new"
    chown 0:0 "$SUDOERS.new"
    chmod 440 "$SUDOERS.new"
    mv "$SUDOERS.new" "$SUDOERS"
}

# The helper itself refuses other verbs: doas has no pattern for arguments.
permit_by_doas() {
    {
        without_block "$DOAS_CONF"
        printf '%s\npermit nopass %s as root cmd %s\n%s\n' "$BLOCK_BEGINS" "$ADMIN" "$HELPER" "$BLOCK_ENDS"
    } >"$TMP/doas"
    doas -C "$TMP/doas" >&2 || die "doas does not accept its new configuration"
    replace "$DOAS_CONF" <"$TMP/doas"
}

# A configuration without what a former run has added.
without_block() {
    [ ! -e "$1" ] || sed "/^$BLOCK_BEGINS\$/,/^$BLOCK_ENDS\$/d" "$1"
}

# replace FILE: its owner and mode stay.
replace() {
    [ -e "$1" ] || { : >"$1"; chmod 600 "$1"; }
    cp -p "$1" "$1.new"
    cat >"$1.new"
    mv "$1.new" "$1"
}

# ---- how renters log in

# Sets MODE, and EXPIRY where keys can have one.
rental_mode() {
    MODE=keys EXPIRY=
    SSHD=$(command -v sshd || echo /usr/sbin/sshd)
    is_openssh || { no_certificates; return 0; }
    if by_certificates; then
        MODE=certificates
        return 0
    fi
    # The block of a former run would keep renters with keys out.
    no_certificates
    if [ "$FORMER_MODE" = certificates ] && "$SSHD" -t 2>/dev/null; then reload_sshd; fi
    warn "this SSH server does not take certificates, so renters log in with keys: $(head -n 1 "$TMP/sshd")"
    EXPIRY=$("$SSHD" -V 2>&1 </dev/null | awk '
        match($0, /OpenSSH_[0-9]+\.[0-9]+/) {
            split(substr($0, RSTART + 8, RLENGTH - 8), v, ".")
            if (v[1] * 100 + v[2] >= 707) print "yes"
            exit
        }')
}

# Whether sshd is the server, and not dropbear beside it.
is_openssh() {
    [ -x "$SSHD" ] && [ -f "$SSHD_CONFIG" ] || return 1
    ! have pidof || ! pidof dropbear >/dev/null 2>&1 || pidof sshd >/dev/null 2>&1
}

sshd_block() {
    cat <<TEXT
$BLOCK_BEGINS
# Written by the enrolment at $URL. Changes are overwritten when it runs again.
Match User $RENTAL_USER
    TrustedUserCAKeys $RENTAL_DIR/ca.pub
    AuthorizedPrincipalsFile $RENTAL_DIR/principals
    AuthorizedKeysFile $RENTAL_DIR/keys
    AuthorizedKeysCommand none
    PubkeyAuthentication yes
    AuthenticationMethods publickey
Match all
$BLOCK_ENDS
TEXT
}

# Changes the configuration of sshd, and takes the change back if sshd does not accept it, or does not do it.
by_certificates() {
    "$SSHD" -t >"$TMP/sshd" 2>&1 || return 1
    file=$SSHD_CONFIG
    if [ -d "${SSHD_DROPIN%/*}" ] && grep -qi '^[[:space:]]*include[[:space:]].*sshd_config\.d/' "$SSHD_CONFIG"; then
        file=$SSHD_DROPIN
    fi
    rm -f "$TMP/former"
    [ ! -e "$file" ] || cp -p "$file" "$TMP/former"
    { without_block "$file"; sshd_block; } >"$TMP/sshd_config"
    replace "$file" <"$TMP/sshd_config"
    if "$SSHD" -t >"$TMP/sshd" 2>&1 && is_effective; then
        reload_sshd
        return 0
    fi
    if [ -e "$TMP/former" ]; then mv "$TMP/former" "$file"; else rm -f "$file"; fi
    return 1
}

# An earlier block for the account, or a line that comes first, would win.
is_effective() {
    "$SSHD" -T -C "user=$RENTAL_USER,host=localhost,addr=127.0.0.1" >"$TMP/effective" 2>"$TMP/sshd" || return 1
    for line in "trustedusercakeys $RENTAL_DIR/ca.pub" "authorizedprincipalsfile $RENTAL_DIR/principals" \
        "authorizedkeysfile $RENTAL_DIR/keys" "authenticationmethods publickey"; do
        if ! grep -qixF "$line" "$TMP/effective"; then
            echo "other settings for $RENTAL_USER win over '$line'" >"$TMP/sshd"
            return 1
        fi
    done
    if grep -qiE '^(allow|deny)(users|groups) ' "$TMP/effective"; then
        warn "$SSHD_CONFIG restricts who logs in: let $RENTAL_USER in too"
    fi
}

no_certificates() {
    rm -f "$SSHD_DROPIN"
    drop_block "$SSHD_CONFIG"
}

drop_block() {
    if [ -e "$1" ] && grep -qxF "$BLOCK_BEGINS" "$1"; then
        without_block "$1" >"$TMP/without"
        replace "$1" <"$TMP/without"
    fi
}

reload_sshd() {
    if [ -d /run/systemd/system ]; then
        for unit in ssh sshd; do
            if systemctl is-active --quiet "$unit"; then
                systemctl reload "$unit" >&2 || die "$unit does not reload: journalctl -u $unit says why"
                return 0
            fi
        done
    fi
    for file in /run/sshd.pid /var/run/sshd.pid; do
        if [ -s "$file" ] && kill -HUP "$(cat "$file")" 2>/dev/null; then return 0; fi
    done
    # One that is started for each connection reads its configuration then.
    ! have pidof || ! pidof sshd >/dev/null 2>&1 || warn "reload sshd, so that renters can log in"
}

no_rental() {
    [ "$(id -u)" = 0 ] || die "--no-rental-user needs root (sudo sh -s -- ...)"
    if [ -x "$HELPER" ] && [ -r "$RENTAL_CONF" ]; then
        "$HELPER" revoke >&2 || die "renters are still logged in: see the message above, then run this again"
    fi
    SSHD=$(command -v sshd || echo /usr/sbin/sshd)
    no_certificates
    rm -f "$SUDOERS"
    drop_block "$DOAS_CONF"
    if [ -x "$SSHD" ] && "$SSHD" -t 2>/dev/null; then reload_sshd; fi
    rm -f "$HELPER" "$RENTAL_CONF" "$RENTAL_DIR/ca.pub" "$RENTAL_DIR/keys" "$RENTAL_DIR/principals" \
        "$RENTAL_DIR/granted" "$RENTAL_DIR/admitted" "$RENTAL_DIR/given" "$RENTAL_DIR/lock"
    rmdir "$RENTAL_DIR" "${HELPER%/*}" 2>/dev/null || true
    say "no renter may log in any more; the account stays"
}

# ---------------------------------------------------------------- the tunnel

is_up() { wg show "$INTERFACE" >/dev/null 2>&1; }

quick() {
    if is_up; then
        [ -n "$CHANGED" ] || return 0
        wg-quick down "$CONF" >"$TMP/quick" 2>&1 || true
    fi
    WG_QUICK_USERSPACE_IMPLEMENTATION=${USERSPACE:-wireguard-go} wg-quick up "$CONF" \
        >"$TMP/quick" 2>&1 </dev/null || { cat "$TMP/quick" >&2; die "the tunnel does not start"; }
}

start() {
    [ -z "$NO_START" ] || { say "written: $CONF"; return 0; }
    have wg-quick || die "wg-quick is missing: install wireguard-tools"
    userspace
    if [ -n "$NO_SERVICE" ]; then
        quick
    elif [ -d /run/systemd/system ] && [ "$ETC" = /etc/wireguard ]; then
        service
    else
        quick
        cron
    fi
    handshake
}

# WireGuard resolves the gateway's name once. When handshakes stop, it may have moved.
refresher() {
    cat >"$REFRESH.new" <<'TEXT'
#!/bin/sh
# Installed by the enrolment with fleetgate: tells WireGuard the gateway's address anew when
# handshakes have stopped. Called each minute with the configuration.
set -eu
interface=$(basename "$1" .conf)
newest=$(wg show "$interface" latest-handshakes | awk '$2 > n { n = $2 } END { print n + 0 }')
age=$(($(date +%s) - newest))
# 180 s: the life of a session. A time in the future: the clock went back.
[ "$age" -gt 180 ] || [ "$age" -lt 0 ] || exit 0
peer=$(sed -n 's/^PublicKey = //p' "$1")
endpoint=$(sed -n 's/^Endpoint = //p' "$1")
exec wg set "$interface" peer "$peer" endpoint "$endpoint"
TEXT
    chmod 755 "$REFRESH.new"
    mv "$REFRESH.new" "$REFRESH"
}

service() {
    units=/etc/systemd/system
    if [ -n "$USERSPACE" ]; then
        mkdir -p "$units/wg-quick@$INTERFACE.service.d"
        printf '[Service]\nEnvironment=WG_QUICK_USERSPACE_IMPLEMENTATION=%s\n' "$USERSPACE" \
            >"$units/wg-quick@$INTERFACE.service.d/fleetgate.conf"
        chmod 755 "$units/wg-quick@$INTERFACE.service.d"
        chmod 644 "$units/wg-quick@$INTERFACE.service.d/fleetgate.conf"
    fi
    REFRESH=/usr/local/sbin/fleetgate-refresh
    refresher
    printf '[Unit]\nDescription=Look up the fleetgate gateway again\n[Service]\nType=oneshot\nExecStart=%s %s\n' \
        "$REFRESH" "$CONF" >"$units/fleetgate-refresh-$INTERFACE.service"
    printf '[Unit]\nDescription=Look up the fleetgate gateway again when handshakes stop\n[Timer]\nOnBootSec=1min\nOnUnitActiveSec=1min\n[Install]\nWantedBy=timers.target\n' \
        >"$units/fleetgate-refresh-$INTERFACE.timer"
    chmod 644 "$units/fleetgate-refresh-$INTERFACE.service" "$units/fleetgate-refresh-$INTERFACE.timer"
    systemctl daemon-reload
    [ -z "$CHANGED" ] || ! is_up || systemctl stop "wg-quick@$INTERFACE"
    systemctl enable --now "wg-quick@$INTERFACE" "fleetgate-refresh-$INTERFACE.timer" >&2 ||
        die "the tunnel does not start: journalctl -u wg-quick@$INTERFACE says why"
}

cron() {
    if [ ! -d /etc/cron.d ]; then
        warn "neither systemd nor cron: start the tunnel at boot with: wg-quick up $CONF"
        return 0
    fi
    REFRESH=/usr/local/sbin/fleetgate-refresh
    refresher
    {
        printf 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n'
        [ -z "$USERSPACE" ] || printf 'WG_QUICK_USERSPACE_IMPLEMENTATION=%s\n' "$USERSPACE"
        printf '@reboot root wg-quick up %s\n* * * * * root %s %s\n' "$CONF" "$REFRESH" "$CONF"
    } >"/etc/cron.d/fleetgate-$INTERFACE"
    chmod 644 "/etc/cron.d/fleetgate-$INTERFACE"
}

# The keepalive makes the first handshake by itself.
handshake() {
    tries=0
    while [ "$tries" -lt 15 ]; do
        if wg show "$INTERFACE" latest-handshakes | awk '$2 > 0 { found = 1 } END { exit !found }'; then
            say "connected as $(value name)"
            return 0
        fi
        sleep 1
        tries=$((tries + 1))
    done
    warn "no handshake yet. Does UDP reach $(value endpoint) from here, and is this clock right ($(date -u))?"
}

main() {
    options "$@"
    check_options
    tools
    TMP=$(mktemp -d)
    trap 'rm -rf "$TMP"' EXIT
    trap 'exit 1' HUP INT TERM
    keys
    if [ -n "$TOKEN" ]; then
        ask
    elif [ -s "$ID" ]; then
        poll
    else
        die "the token is missing: say --token fge_..."
    fi
    approval
    preshared_key
    configuration
    login
    start
    forward
    rental
}

main "$@"
