// A party of Accord on js-libp2p: none of Accord's code, only the formats that docs/reference describes.
//
// One question a line on standard input (JSON), one answer a line on standard output: {"ok": ...} or {"refused": "why"}.

import { createHash, createPrivateKey, createPublicKey, sign, verify, webcrypto } from 'node:crypto'
import { createInterface } from 'node:readline'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import { peerIdFromString } from '@libp2p/peer-id'
import { tcp } from '@libp2p/tcp'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

// What js-libp2p calls and Node.js 18, which Debian 12 has, lacks (Node.js 20: the first).
Promise.withResolvers ??= () => {
  const made = {}
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }))
  return made
}

globalThis.CustomEvent ??= class extends Event {
  constructor (type, options = {}) {
    super(type, options)
    this.detail = options.detail ?? null
  }
}
globalThis.crypto ??= webcrypto

const PIECE_BYTES = 1 << 20
const ANSWER_BYTES_MAX = PIECE_BYTES + 9
const EM_DASH = '\u2014'
const PKCS8_ED25519 = Buffer.from('302e020100300506032b657004220420', 'hex')

const sha256 = (...parts) => parts.reduce((hash, part) => hash.update(part), createHash('sha256')).digest()
const refuse = (why) => { throw new Error(why) }

// Keys: Ed25519, by Node's own crypto.

const publicKey = (raw) => createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x: Buffer.from(raw).toString('base64url') }, format: 'jwk' })
const keyIn = (peerId) => Buffer.from(peerIdFromString(peerId).publicKey.raw)
const holds = (raw, signature, message) => verify(null, message, publicKey(raw), signature)

// Frames: eight bytes of length, big endian, then the payload. An answer begins with 0; an error with 1.

function frame (payload) {
  const header = Buffer.alloc(8)
  header.writeBigUInt64BE(BigInt(payload.length))
  return Buffer.concat([header, payload])
}

async function readFrame (stream, bytesMax) {
  let received = Buffer.alloc(0)
  for await (const chunk of stream) {
    received = Buffer.concat([received, chunk.subarray()])
    if (received.length < 8) continue
    const length = Number(received.readBigUInt64BE())
    if (length > bytesMax || received.length > 8 + length) refuse(`a frame of ${length} bytes`)
    if (received.length === 8 + length) return received.subarray(8)
  }
  return refuse(`the stream ended after ${received.length} bytes`)
}

async function ask (protocol, payload) {
  const stream = await connection.newStream(protocol, { signal: AbortSignal.timeout(5000) })
  try {
    stream.send(frame(payload))
    const answer = await readFrame(stream, ANSWER_BYTES_MAX)
    if (answer[0] !== 0) refuse(answer.subarray(1).toString())
    return answer.subarray(1)
  } finally {
    stream.abort(new Error('done'))
  }
}

// Blobs: named by their SHA-256, asked for piece by piece.

async function blob (name) {
  const pieces = []
  let [size, offset] = [1, 0]
  while (offset < size) {
    const answer = await ask('/accord/blob/2', Buffer.from(`{"length":${PIECE_BYTES},"name":"${name}","offset":${offset}}`))
    const piece = answer.subarray(8)
    size = Number(answer.readBigUInt64BE())
    if (piece.length !== Math.min(PIECE_BYTES, size - offset)) refuse('a piece of the wrong length')
    pieces.push(piece)
    offset += piece.length
  }
  const data = Buffer.concat(pieces)
  if (sha256(data).toString('hex') !== name) refuse('the blob has another hash')
  return data
}

// Checkpoints: C2SP tlog-checkpoint, signed-note and tlog-cosignature.

const keyId = (name, type, raw) => sha256(`${name}\n`, Buffer.of(type), raw).subarray(0, 4)

function openCheckpoint (note, origin, raw) {
  const end = note.indexOf('\n\n')
  const [name, size, root, ...more] = note.slice(0, end).split('\n')
  const [dash, signer, content] = note.slice(end + 2).split('\n')[0].split(' ')
  const decoded = Buffer.from(content ?? '', 'base64')
  if (end < 0 || more.length !== 0 || name !== origin || dash !== EM_DASH || signer !== origin) refuse('not a note of this log')
  if (!decoded.subarray(0, 4).equals(keyId(origin, 1, raw))) refuse('another key signed the checkpoint')
  const body = Buffer.from(note.slice(0, end + 1))
  if (!holds(raw, decoded.subarray(4), body)) refuse("the checkpoint's signature does not hold")
  return { body, size: Number(size), root }
}

function cosignature (body, did, seed) {
  const timestamp = Math.floor(Date.now() / 1000)
  const key = createPrivateKey({ key: Buffer.concat([PKCS8_ED25519, seed]), format: 'der', type: 'pkcs8' })
  const raw = Buffer.from(createPublicKey(key).export({ format: 'jwk' }).x, 'base64url')
  const time = Buffer.alloc(8)
  time.writeBigUInt64BE(BigInt(timestamp))
  const signed = sign(null, Buffer.concat([Buffer.from(`cosignature/v1\ntime ${timestamp}\n`), body]), key)
  return `${EM_DASH} ${did} ${Buffer.concat([keyId(did, 4, raw), time, signed]).toString('base64')}`
}

// The log: RFC 6962 over signed entries (DSSE).

function root (leaves) {
  if (leaves.length < 2) return leaves[0] ?? sha256('')
  const split = 2 ** Math.floor(Math.log2(leaves.length - 1))
  return sha256(Buffer.of(1), root(leaves.slice(0, split)), root(leaves.slice(split)))
}

function checkEntry (text, raw) {
  const { payload, payloadType, signature } = JSON.parse(text)
  const body = Buffer.from(payload, 'base64')
  const signed = Buffer.concat([Buffer.from(`DSSEv1 ${payloadType.length} ${payloadType} ${body.length} `), body])
  if (!holds(raw, Buffer.from(signature, 'base64'), signed)) refuse('an entry is not signed by the coordinator')
}

// The witness: takes entries in, and cosigns a checkpoint that they lead to.

const log = []

async function witness (stream, { origin, did, seed, raw }) {
  const request = JSON.parse(await readFrame(stream, 1 << 24))
  if (request.first !== log.length) refuse('entries that are not the next')
  for (const entry of request.entries) checkEntry(entry, raw)
  log.push(...request.entries)
  const reply = { size: log.length, version: 1 }
  if (request.checkpoint !== undefined) {
    const { body, size, root: shown } = openCheckpoint(request.checkpoint, origin, raw)
    const ours = root(log.map((entry) => sha256(Buffer.of(0), entry))).toString('base64')
    if (size !== log.length || shown !== ours) refuse('the checkpoint is of another tree')
    reply.cosignature = cosignature(body, did, seed)
  }
  const answer = Buffer.from(JSON.stringify(Object.fromEntries(Object.entries(reply).sort())))
  stream.send(frame(Buffer.concat([Buffer.of(0), answer])))
  await stream.close()
}

// Questions and answers.

let [node, connection] = []

const answers = {
  async connect ({ address, seed }) {
    await node?.stop()
    const privateKey = await generateKeyPairFromSeed('Ed25519', Buffer.from(seed, 'hex'))
    node = await createLibp2p({ privateKey, transports: [tcp()], connectionEncrypters: [noise()], streamMuxers: [yamux()] })
    connection = await node.dial(multiaddr(address))
    return { peer: connection.remotePeer.toString(), encryption: connection.encryption, multiplexer: connection.multiplexer }
  },
  async heartbeat () {
    return (await ask('/accord/heartbeat/1', Buffer.alloc(0))).length
  },
  async blob ({ name }) {
    return (await blob(name)).length
  },
  async update ({ chunks, update, update_bytes: bytes }) {
    const whole = Buffer.concat(await Promise.all(chunks.map(blob)))
    if (whole.length !== bytes || sha256(whole).toString('hex') !== update) refuse('the chunks do not make the update')
    return whole.length
  },
  async checkpoint ({ origin }) {
    const note = (await ask('/accord/checkpoint/1', Buffer.alloc(0))).toString()
    const { size, root } = openCheckpoint(note, origin, keyIn(connection.remotePeer.toString()))
    return { size, root }
  },
  async witness ({ origin, did, seed }) {
    const parts = { origin, did, seed: Buffer.from(seed, 'hex'), raw: keyIn(connection.remotePeer.toString()) }
    await node.handle('/accord/cosign/1', async (stream) => {
      try {
        await witness(stream, parts)
      } catch (error) {
        stream.abort(error)
      }
    })
    return true
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const { kind, ...question } = JSON.parse(line)
  try {
    console.log(JSON.stringify({ ok: await answers[kind](question) }))
  } catch (error) {
    console.log(JSON.stringify({ refused: `${error.name}: ${error.message}` }))
  }
}
await node?.stop()
process.exit(0)
