// Every state of the page, photographed and looked at by axe, in front of the whole system in one process.
import { takeStates } from '../../web/scripts/states.mjs';
import { artifacts, env, origin, play, step } from './scene.mjs';

await play((browser) => takeStates({ browser, url: origin, folder: artifacts, operator: env.OPERATOR, step }));
