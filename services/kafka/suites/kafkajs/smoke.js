// kafkajs against a cluster: records, groups, transactions and the admin calls. `node smoke.js BOOTSTRAP_SERVERS`.
'use strict'
const assert = require('node:assert')
const { Kafka, logLevel, CompressionTypes } = require('kafkajs')

const run = Math.random().toString(36).slice(2, 10)
const kafka = new Kafka({ clientId: 'smoke', brokers: process.argv[2].split(','), logLevel: logLevel.ERROR })
const admin = kafka.admin()

async function topic(name, numPartitions = 3) {
  const full = `smoke-${run}-${name}`
  await admin.createTopics({ topics: [{ topic: full, numPartitions }], waitForLeaders: true })
  return full
}

async function until(sentence, holds, patience = 60_000) {
  const end = Date.now() + patience
  while (!(await holds())) {
    assert(Date.now() < end, `not within ${patience} ms: ${sentence}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

async function reader(group, name, values, more = {}) {
  const consumer = kafka.consumer({ groupId: `${run}-${group}`, sessionTimeout: 6000, ...more })
  await consumer.connect()
  await consumer.subscribe({ topics: [name], fromBeginning: true })
  await consumer.run({ eachMessage: async ({ message }) => values.push(message.value.toString()) })
  return consumer
}

async function recordsComeBack() {
  const name = await topic('records')
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 })
  await producer.connect()
  for (const compression of [CompressionTypes.None, CompressionTypes.GZIP]) {
    const messages = Array.from({ length: 100 }, (_, i) => ({ key: `${i}`, value: `${compression}-${i}`, headers: { h: 'x' } }))
    await producer.send({ topic: name, compression, messages })
  }
  const values = []
  const consumer = await reader('records', name, values)
  await until('200 records', () => values.length >= 200)
  assert.strictEqual(new Set(values).size, 200)
  await consumer.disconnect()
  await producer.disconnect()
}

async function aGroupSharesAndResumes() {
  const name = await topic('group', 4)
  const producer = kafka.producer()
  await producer.connect()
  const values = []
  const members = [await reader('group', name, values), await reader('group', name, values)]
  await until('both are members', async () => {
    const { groups } = await admin.describeGroups([`${run}-group`])
    return groups[0].state === 'Stable' && groups[0].members.length === 2
  })
  await producer.send({ topic: name, messages: Array.from({ length: 100 }, (_, i) => ({ key: `${i}`, value: `${i}` })) })
  await until('100 records', () => values.length >= 100)
  for (const member of members) await member.disconnect()
  const later = []
  const again = await reader('group', name, later)
  await producer.send({ topic: name, messages: [{ value: 'late' }] })
  await until('the late one', () => later.includes('late'))
  assert.deepStrictEqual(later, ['late'], 'it resumes where the group committed')
  await again.disconnect()
  await producer.disconnect()
}

async function aTransactionIsSeenWholeOrNotAtAll() {
  const name = await topic('transactions', 1)
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1, transactionalId: `${run}-tx` })
  await producer.connect()
  for (const commit of [false, true]) {
    const transaction = await producer.transaction()
    await transaction.send({ topic: name, messages: [{ value: `a-${commit}` }, { value: `b-${commit}` }] })
    await transaction.sendOffsets({
      consumerGroupId: `${run}-offsets`, topics: [{ topic: name, partitions: [{ partition: 0, offset: commit ? '7' : '3' }] }],
    })
    await (commit ? transaction.commit() : transaction.abort())
  }
  const values = []
  const consumer = await reader('committed', name, values, { readUncommitted: false })
  await until('what was committed', () => values.length >= 2)
  assert.deepStrictEqual(values, ['a-true', 'b-true'])
  await until('the offsets of the transaction', async () => {
    const [offsets] = await admin.fetchOffsets({ groupId: `${run}-offsets`, topics: [name] })
    return offsets.partitions[0].offset === '7'
  })
  await consumer.disconnect()
  await producer.disconnect()
}

async function theAdminCallsAnswer() {
  const name = await topic('admin', 1)
  await admin.createPartitions({ topicPartitions: [{ topic: name, count: 3 }] })
  await until('three partitions', async () => {
    const { topics } = await admin.fetchTopicMetadata({ topics: [name] })
    return topics[0].partitions.length === 3
  })
  const describe = async () => {
    const { resources } = await admin.describeConfigs({ resources: [{ type: 2, name, configNames: ['retention.ms'] }] })
    return resources[0].configEntries.find((entry) => entry.configName === 'retention.ms').configValue
  }
  assert.strictEqual(await describe(), '604800000')
  await admin.alterConfigs({ resources: [{ type: 2, name, configEntries: [{ name: 'retention.ms', value: '3600000' }] }] })
  await until('the change shows', async () => (await describe()) === '3600000')
  assert((await admin.describeCluster()).brokers.length > 0)
  assert((await admin.listTopics()).includes(name))
  assert.strictEqual((await admin.fetchTopicOffsets(name)).length, 3)
  assert((await admin.listGroups()).groups.length > 0)
  await admin.deleteGroups([`${run}-records`])
  await admin.deleteTopics({ topics: [name] })
  await until('the topic is gone', async () => !(await admin.listTopics()).includes(name))
}

async function main() {
  await admin.connect()
  for (const test of [recordsComeBack, aGroupSharesAndResumes, aTransactionIsSeenWholeOrNotAtAll, theAdminCallsAnswer]) {
    const started = Date.now()
    await test()
    console.log(`ok ${test.name} (${((Date.now() - started) / 1000).toFixed(1)} s)`)
  }
  await admin.disconnect()
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
