// Runs the AwsSolutions rules over cloud assemblies: node nag.mjs DIR…, each a folder that `cdk synth` wrote.
//
// A finding is an error unless the stack accepts it: in Go, beside the resource, with a reason (Accept in cdk/edge). The CDK writes
// that into the assembly's metadata, under the construct's path. What is accepted of the CDK's own helper functions stands below.
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { App, DefaultStackSynthesizer, Stack, Validations } from 'aws-cdk-lib';
import { CfnInclude } from 'aws-cdk-lib/cloudformation-include';
import { AwsSolutionsChecks } from 'cdk-nag';

const LOGICAL_ID = 'aws:cdk:logicalId';
const ACCEPTED = 'aws:cdk:acknowledged-rules';

// Functions that the CDK itself puts into a stack, by the part of their path after the stack's name. Their code and roles are the CDK's.
const cdksOwn = [
  'Custom::VpcRestrictDefaultSG',
  'Custom::S3AutoDeleteObjects',
  'Custom::CDKBucketDeployment',
  'AWS679f53fac002430cb0da5b7982bd2287', // AwsCustomResource
];
const ofTheCDK = {
  'AwsSolutions-IAM4': "the CDK's helper functions use AWS's basic execution policy",
  'AwsSolutions-IAM5': "the CDK's helper functions get their grants from the CDK",
  'AwsSolutions-L1': "the runtime of the CDK's helper functions is the CDK's choice",
};

/** Everything that a template's checks need from its assembly. */
function load(dir) {
  const file = readdirSync(dir).find((name) => name.endsWith('.template.json'));
  const metadata = JSON.parse(readFileSync(join(dir, file.replace('.template.json', '.metadata.json')), 'utf8'));
  const paths = new Map();
  const accepted = [];
  for (const [path, entries] of Object.entries(metadata)) {
    for (const { type, data } of entries) {
      if (type === LOGICAL_ID) paths.set(data, path);
      if (type !== ACCEPTED) continue;
      for (const [id, reason] of Object.entries(data)) {
        accepted.push({ path, id: id.replace(/^Annotation::/, ''), reason, used: false });
      }
    }
  }
  return { templateFile: join(dir, file), paths, accepted };
}

/** Findings of one assembly, each { rule, id, path }. */
function check({ templateFile, paths }) {
  const outdir = mkdtempSync(join(tmpdir(), 'tideline-nag-'));
  try {
    const app = new App({ outdir });
    const stack = new Stack(app, 'checked', { synthesizer: new DefaultStackSynthesizer({ generateBootstrapVersionRule: false }) });
    new CfnInclude(stack, 'template', { templateFile });
    const { violations } = new AwsSolutionsChecks(app).validateScope(app);
    return violations.flatMap(({ ruleName, description, violatingResources }) =>
      violatingResources.map(({ constructPath }) => {
        const id = constructPath.split('/').at(-1);
        return { rule: ruleName, description, id, path: paths.get(id) ?? `/${id}` };
      }));
  } finally {
    rmSync(outdir, { recursive: true });
  }
}

/** Whether path is at or below the construct that accepted the rule; a rule may be accepted whole or for one finding, Rule[finding]. */
const covers = (accepted, { rule, path }) =>
  (path === accepted.path || path.startsWith(`${accepted.path}/`)) && (rule === accepted.id || rule.startsWith(`${accepted.id}[`));

const ownOfTheCDK = ({ rule, path }) =>
  cdksOwn.some((part) => path.split('/').slice(2).join('/').startsWith(part)) && Object.keys(ofTheCDK).some((id) => rule === id || rule.startsWith(`${id}[`));

// A policy can't list the objects of a bucket; what matters is that it names one bucket and single actions.
const objectsOfOneBucket = ({ rule }) => /^AwsSolutions-IAM5\[Resource::<\w+\.Arn>\/\*\]$/.test(rule);

let failed = 0;
const unused = new Map(); // by rule and reason: accepted somewhere, needed nowhere
const dirs = process.argv.slice(2);
if (dirs.length === 0) {
  console.error('usage: node nag.mjs DIR…');
  process.exit(2);
}
for (const dir of dirs) {
  const assembly = load(dir);
  const found = check(assembly);
  if (found.length === 0) { // each of our variants has findings that it accepts: none at all means that nothing was looked at
    console.error(`${dir}: no finding at all; were the resources read?`);
    failed++;
  }
  for (const finding of found) {
    const by = assembly.accepted.filter((a) => covers(a, finding));
    for (const a of by) a.used = true;
    if (by.length > 0 || ownOfTheCDK(finding) || objectsOfOneBucket(finding)) continue;
    failed++;
    console.error(`${finding.path}: ${finding.rule}: ${finding.description}`);
  }
  for (const { id, reason, used } of assembly.accepted) {
    const key = `${id}: ${reason}`;
    if (id.startsWith('AwsSolutions-')) unused.set(key, (unused.get(key) ?? true) && !used);
  }
}
for (const [key, never] of unused) {
  if (!never) continue;
  failed++;
  console.error(`accepted, but nothing needs it: ${key}`);
}
console.log(`${dirs.length} templates, ${failed} findings that nobody accepts`);
process.exit(failed === 0 ? 0 : 1);
