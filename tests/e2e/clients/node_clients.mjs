// Each call of the Node clients that the guide names; prints one JSON object.
import { InferenceClient } from '@huggingface/inference';
import OpenAI from 'openai';

const [root, text] = process.argv.slice(2);
const hub = new InferenceClient().endpoint(`${root}/models/b`);
const openai = new OpenAI({ baseURL: `${root}/v1`, apiKey: 'k', maxRetries: 0 });
const refused = async call => { try { await call(); return null; } catch (e) { return String(e.message); } };

console.log(JSON.stringify({
  hub: await hub.textClassification({ inputs: text }),
  hubTop: await hub.textClassification({ inputs: text, parameters: { top_k: 1 } }),
  hubUnknown: await refused(() => new InferenceClient().endpoint(`${root}/models/none`).textClassification({ inputs: text })),
  models: (await openai.models.list()).data.map(m => m.id),
  one: (await openai.models.retrieve('b')).id,
  moderation: (await openai.moderations.create({ model: 'b', input: [text, 'dull'] })).results.map(r => r.category_scores),
  moderationUnknown: await refused(() => openai.moderations.create({ model: 'none', input: text })),
}));
