#!/bin/sh
set -eu
URL=${FLEETGATE_URL:-@FLEETGATE_URL@}
