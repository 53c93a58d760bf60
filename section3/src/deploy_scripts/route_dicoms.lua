-- The router, inside the archive: every study without news for StableAge seconds goes to the listener of the AI node.
--
-- Never a series that the AI made, else its report would make the study news again, and it would be routed for ever.
-- A series that has grown since is sent again. What was sent is written at the series once the listener has all of it.
-- A transfer that failed is tried again by route_again: this Orthanc calls no script by the clock.

TARGET = 'node'                          -- in DicomModalities
MADE_BY_AI = '^HippoVolume%.AI'          -- how the SeriesDescription begins of all that the AI makes
SENT = '1024'                            -- metadata of a series: its LastUpdate when it was sent

local jobs = {}                          -- job -> { series -> its LastUpdate }
local underway = {}                      -- series -> its LastUpdate

local function metadata(series)
  return ParseJson(RestApiGet('/series/' .. series .. '/metadata?expand'))
end

function RouteStudy(study)
  local todo, updates = {}, {}
  for _, series in pairs(ParseJson(RestApiGet('/studies/' .. study .. '/series'))) do
    local id = series['ID']
    if not string.find(series['MainDicomTags']['SeriesDescription'] or '', MADE_BY_AI) then
      local known = metadata(id)
      local update = known['LastUpdate']
      if known[SENT] ~= update and underway[id] ~= update then
        table.insert(todo, id)
        updates[id] = update
      end
    end
  end
  if #todo == 0 then return end
  local order = DumpJson({ Resources = todo, Synchronous = false })
  local job = ParseJson(RestApiPost('/modalities/' .. TARGET .. '/store', order))['ID']
  jobs[job] = updates
  for id, update in pairs(updates) do underway[id] = update end
  print('route: ' .. #todo .. ' series of study ' .. study .. ' by job ' .. job)
end

function OnStableStudy(study, tags, known)
  RouteStudy(study)
end

function OnJobSuccess(job)
  for id, update in pairs(jobs[job] or {}) do
    RestApiPut('/series/' .. id .. '/metadata/' .. SENT, update)
    if underway[id] == update then underway[id] = nil end
  end
  jobs[job] = nil
end

function OnJobFailure(job)
  if jobs[job] then print('route: job ' .. job .. ' failed; it is tried again') end
end

-- At start: studies that were not yet stable, or on their way, when the archive was stopped.
function Initialize()
  for _, study in pairs(ParseJson(RestApiGet('/studies'))) do RouteStudy(study) end
end
