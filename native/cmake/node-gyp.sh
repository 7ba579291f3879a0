#!/bin/sh
# What prebuildify runs in place of node-gyp: the same build as a clone's, whatever arguments it passes.
exec npm run --silent build:native
